"""The studies of a DICOMweb archive, with annotations and volumes in a cache folder."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sysconfig
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import requests
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.utils.dicom import dicom_web_download_series
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from lib.datastore.dicom_series import SeriesError, is_fetched, series_to_nifti
from lib.datastore.safe_index import SafeIndex

logger = logging.getLogger(__name__)

SEARCH_FILTER = {"Modality": "MR,CT"}
# A viewer asks for the list at every turn; a series that has just been sent to the archive appears after this time.
LISTING_EXPIRES_S = 5.0

_ARCHIVE_HELP = "does not answer as it should; see that it runs."
_LOGIN_HELP = (
    "refuses the login; start the server with the right MONAI_LABEL_DICOMWEB_USERNAME and "
    "MONAI_LABEL_DICOMWEB_PASSWORD in the environment."
)


class DICOMWebStudies(SafeIndex, DICOMWebDatastore):
    """A DICOMweb archive. An image id is the UID of a series.

    Series are searched for with the filter that MONAI Label hands over; a "Modality" of several, as "MR,CT", is asked
    for one by one, because archives differ in how, and whether, they take several at once.

    Raises, where an archive is asked:
        HTTPException: 404, it has no such series; 422, a series that is not a volume on an even grid; 502, it does
            not answer, or refuses the login.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._fetching: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._listing: tuple[float, list[str]] | None = None
        super().__init__(*arguments, **options)
        self._searches = _searches(self._search_filter)

    def list_images(self) -> list[str]:
        listing = self._listing
        if listing is None or time.monotonic() - listing[0] > LISTING_EXPIRES_S:
            listing = self._listing = (time.monotonic(), self._search())
        return list(listing[1])

    def _search(self) -> list[str]:
        found: dict[str, None] = {}
        for search_filter in self._searches:
            for series in self._ask(partial(self._client.search_for_series, search_filters=search_filter)):
                found[str(Dataset.from_json(series).SeriesInstanceUID)] = None
        return list(found)

    def get_image_uri(self, image_id: str) -> str:
        """A NIfTI file made of the series, which is fetched once and whole."""
        if image_id != os.path.basename(image_id):
            raise HTTPException(404, f"There is no series {image_id!r} in the archive.")
        path = Path(self._datastore.image_path(), f"{image_id}.nii.gz").resolve()
        # Without a lock where it is there: this is called while others hold the index.
        if not path.exists():
            with self._fetching[image_id]:
                if not path.exists():
                    self._convert(self._fetched_series(image_id), path)
                    self.list_image(image_id, path.name, self._ask(lambda: self._dicom_info(image_id), image_id))
        return str(path)

    def _fetched_series(self, image_id: str) -> Path:
        """The folder of its DICOM files; filled under another name, so that a series cut short is not taken whole."""
        series = Path(self._datastore.image_path(), image_id)
        if not is_fetched(series):
            with tempfile.TemporaryDirectory(dir=series.parent, prefix=".fetching-") as unfinished:
                files = Path(unfinished, "series")
                self._ask(lambda: self._download(image_id, files), image_id)
                shutil.rmtree(series, ignore_errors=True)
                os.replace(files, series)
        return series

    def _download(self, image_id: str, folder: Path) -> None:
        if not self._fetch_by_frame:
            dicom_web_download_series(None, image_id, str(folder), self._client)
            return
        # MONAI Label's own writes files without a head here, and does not look at what became of the frames.
        folder.mkdir()
        found = Dataset.from_json(self._client.search_for_series(search_filters={"SeriesInstanceUID": image_id})[0])
        for metadata in self._client.retrieve_series_metadata(found.StudyInstanceUID, image_id):
            instance = Dataset.from_json(metadata)
            (instance.PixelData,) = self._client.retrieve_instance_frames(
                found.StudyInstanceUID, image_id, instance.SOPInstanceUID, frame_numbers=[1]
            )
            instance.file_meta = FileMetaDataset()
            instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            instance.is_little_endian, instance.is_implicit_VR = True, False
            instance.save_as(folder / f"{instance.SOPInstanceUID}.dcm", write_like_original=False)

    @staticmethod
    def _convert(series: Path, path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as unfinished:
            try:
                series_to_nifti(series, Path(unfinished, path.name))
            except SeriesError as error:
                # The archive may be completed or corrected; the next request asks for it anew.
                shutil.rmtree(series, ignore_errors=True)
                raise HTTPException(422, str(error)) from error
            os.replace(Path(unfinished, path.name), path)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Of a fetched series: its study and patient too, which OHIF needs to open it."""
        info = super().get_image_info(image_id)
        if info and "SeriesInstanceUID" not in info:  # the index was lost, or written by a look into the folder
            info |= self._ask(lambda: self._dicom_info(image_id), image_id)
        return info

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The file of a label; MONAI Label's own looks in the archive, by a name that the index does not know."""
        local = SafeIndex.get_label_uri(self, label_id, label_tag)
        return local or DICOMWebDatastore.get_label_uri(self, label_id, label_tag, image_id)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        if image_id in self.list_images():
            self.get_image_uri(image_id)  # before the index is held: this takes a while, and others need the index
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def _ask(self, question: Callable[[], Any], series: str = "") -> Any:
        try:
            return question()
        except IndexError as error:  # MONAI Label takes the first of what is found
            raise HTTPException(404, f"There is no series {series!r} in the archive.") from error
        except requests.RequestException as error:
            logger.error("The archive %s: %s", self._client.base_url, error)
            refused = error.response is not None and error.response.status_code in (401, 403)
            raise HTTPException(
                502, f"The DICOMweb archive {self._client.base_url} {_LOGIN_HELP if refused else _ARCHIVE_HELP}"
            ) from error


def _searches(search_filter: dict[str, Any]) -> list[dict[str, Any]]:
    modalities = search_filter.get("Modality")
    if not isinstance(modalities, str):
        return [search_filter]
    return [{**search_filter, "Modality": modality.strip()} for modality in modalities.split(",")]


def set_archive_defaults() -> None:
    """Sets what MONAI Label needs for a DICOMweb archive and the user has not set."""
    if "MONAI_LABEL_DICOMWEB_SEARCH_FILTER" not in settings.model_fields_set:
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER = SEARCH_FILTER
        # A training runs in a process of its own, which reads its settings from here.
        os.environ["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"] = json.dumps(SEARCH_FILTER)
    if not shutil.which("itkimage2segimage"):
        # The program comes with the package dcmqi; MONAI Label would download it.
        os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
