"""Open the studies of a server: a folder of images, or a DICOMweb archive."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from monailabel.config import settings
from pydicom.sr.coding import Code

from lib.server.archive.archive import Archive
from lib.server.launch import refuse_missing_studies
from lib.server.masks.old_masks import name_old_masks
from lib.server.project import (
    Project,
    ProjectError,
    ProjectIdentity,
    archive_cache,
    archive_hash,
    is_archive,
    open_project,
    project_of,
)
from lib.server.studies.archive_studies import ArchiveStudies
from lib.server.studies.datastore import Studies
from lib.server.studies.folder_studies import FolderStudies

logger = logging.getLogger(__name__)

MODALITIES = ("MR", "CT")


def open_studies(
    studies: str,
    labels: Sequence[str],
    project_dir: Path | None,
    codes: Mapping[str, Code] = MappingProxyType({}),
    modalities: Sequence[str] = MODALITIES,
    readers: int = 1,
    cache: Path | None = None,
) -> Studies:
    """Open the studies and the project with their annotations.

    Args:
        studies: folder of images, or URL of a DICOMweb archive without a login.
        labels: labels of the app.
        project_dir: folder for annotations, models and logs; default: see `project_of`.
        codes: DICOM code of each label, for segmentations.
        modalities: modalities of the series to list in an archive.
        readers: number of readers of each study.
        cache: folder for volumes fetched from an archive; default: see `archive_cache`.

    Raises:
        StartError: the folder of images does not exist.
        ProjectError: a folder cannot be read or written.
    """
    if is_archive(studies):
        address = studies.rstrip("/")
        folder = archive_cache(address) if cache is None else cache
        return _open_archive(address, labels, project_dir, codes, readers, folder, modalities)
    folder = Path(studies).absolute()
    refuse_missing_studies(folder)
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ProjectError(f"The studies folder {folder} cannot be read; allow it.")
    project = project_of(studies, project_dir)
    opened = FolderStudies(folder, project, _identity(project, labels), labels, readers)
    if not opened.list_images():
        logger.warning("The studies folder %s holds no image yet; put .nii.gz, .nii or .nrrd files into it.", folder)
    return opened


def _open_archive(
    address: str,
    labels: Sequence[str],
    project_dir: Path | None,
    codes: Mapping[str, Code],
    readers: int,
    cache: Path,
    modalities: Sequence[str],
) -> ArchiveStudies:
    project = project_of(address, project_dir)
    _take_over(_old_folder(address), project)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ProjectError(f"The cache folder {cache} cannot be written ({error.strerror}); allow it.") from error
    archive = Archive(
        address,
        archive_login(),
        _search_filter(modalities),
        settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
        archive_prefixes(),
    )
    identity = _identity(project, labels)
    return ArchiveStudies(archive, cache, project, identity, labels, codes, readers)


def _identity(project: Project, labels: Sequence[str]) -> ProjectIdentity:
    identity = open_project(project, labels)
    if identity.is_new:
        name_old_masks(project, labels)
    return identity


def archive_login() -> tuple[str, str] | None:
    """Return name and password for the archive; None if the user has not set them."""
    name, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    return (name, password) if name and password else None


def archive_prefixes() -> tuple[str | None, str | None, str | None]:
    """Return the URL prefixes of the archive's search, retrieve and store services."""
    return settings.MONAI_LABEL_QIDO_PREFIX, settings.MONAI_LABEL_WADO_PREFIX, settings.MONAI_LABEL_STOW_PREFIX


def _old_folder(address: str) -> Path:
    """Return the folder in which earlier versions stored annotations."""
    return Path.home() / ".cache" / "monailabel" / "dicom" / archive_hash(address)


def _take_over(old: Path, project: Project) -> None:
    """Copy the annotations of an earlier version, once."""
    if project.labels.exists() or not (old / "labels").is_dir():
        return
    part = project.folder / ".labels.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(old / "labels", part)
        if (old / project.old_index.name).is_file():
            shutil.copyfile(old / project.old_index.name, project.old_index)
        os.rename(part, project.labels)
    except OSError as error:
        raise ProjectError(f"The annotations in {old} cannot be copied to {project.folder} ({error}).") from error
    logger.warning("The annotations in %s were copied to %s, where they are kept from now on.", old, project.folder)


def _search_filter(modalities: Sequence[str]) -> Mapping[str, Any]:
    """Return the search filter of the environment; default: all series of these modalities (MONAI Label's is CT)."""
    if "MONAI_LABEL_DICOMWEB_SEARCH_FILTER" not in settings.model_fields_set:
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER = {"Modality": ",".join(modalities)}
        # Processes of trainings read their settings from the environment.
        os.environ["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"] = json.dumps(settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER)
    chosen: Mapping[str, Any] = settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER
    return chosen
