"""The studies that a server is started with: a folder of images, or a DICOMweb archive."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections import defaultdict
from pathlib import Path

from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.utils.dicom import dicom_web_download_series

from lib.datastore.safe_index import SafeIndex

logger = logging.getLogger(__name__)


class StudiesFolder(SafeIndex):
    """A folder of images."""


class DICOMWebStudies(SafeIndex, DICOMWebDatastore):
    """A DICOMweb archive, with annotations in its cache folder."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        self._fetching: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        super().__init__(*arguments, **settings)

    def get_image_uri(self, image_id: str) -> str:
        """A NIfTI file made of the series, which is fetched once and whole."""
        with self._fetching[image_id]:
            self._fetch_series(image_id)
            return DICOMWebDatastore.get_image_uri(self, image_id)

    def _fetch_series(self, image_id: str) -> None:
        """Fetches into a folder of another name: MONAI Label takes a series cut short for a whole one."""
        series = Path(self._datastore.image_path()) / image_id
        if series.exists() and any(series.iterdir()):
            return
        unfinished = Path(tempfile.mkdtemp(dir=series.parent, prefix=".fetching-"))
        try:
            dicom_web_download_series(None, image_id, str(unfinished), self._client, self._fetch_by_frame)
            os.replace(unfinished, series)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


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
