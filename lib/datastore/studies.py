"""A folder of images as the studies that a server is started with."""

from __future__ import annotations

import logging

from monailabel.config import settings

from lib.datastore.safe_index import SafeIndex

logger = logging.getLogger(__name__)


class StudiesFolder(SafeIndex):
    """A folder of images."""


def open_studies_folder(folder: str) -> StudiesFolder:
    """The images of a folder, as MONAI Label's settings say."""
    studies = StudiesFolder(
        folder,
        extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
        auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
        read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
    )
    if not studies.list_images():
        logger.warning("The studies folder %s holds no image yet; put .nii.gz, .nii or .nrrd files into it.", folder)
    return studies
