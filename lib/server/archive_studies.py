"""The series of a DICOMweb archive as studies, with their volumes in a cache folder."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from pydicom.dataset import Dataset

from lib.annotations.masks import MaskError
from lib.annotations.names import label_values
from lib.exchange.dicom_seg import SegmentationError, dicom_segmentation
from lib.geometry.dicom_series import SeriesError, series_to_nifti
from lib.geometry.volume import VolumeError
from lib.server.archive import Archive, ArchiveError, Series
from lib.server.archive_listing import ArchiveListing
from lib.server.json_file import JsonFile
from lib.server.private_folder import is_left_over
from lib.server.project import Project, ProjectIdentity
from lib.server.studies import Studies

logger = logging.getLogger(__name__)

_FETCHING = ".fetching-"

ASK_AGAIN_S = 600.0
"""After which a refused series is fetched anew where the archive does not tell its number of instances."""


class ArchiveStudies(Studies):
    """The series of an archive. An image id is the UID of a series.

    Args:
        cache: folder for what can be fetched again.
    """

    def __init__(
        self, archive: Archive, cache: Path, project: Project, identity: ProjectIdentity, labels: Sequence[str]
    ) -> None:
        super().__init__(project, identity, labels)
        self.archive = archive
        self.cache = cache
        self._volumes = cache / "volumes"
        self._volumes.mkdir(parents=True, exist_ok=True)
        for left in self._volumes.glob(f"{_FETCHING}*"):
            if is_left_over(left, _FETCHING):  # and not of the server, where this is its training
                shutil.rmtree(left, ignore_errors=True)
        self.listing = ArchiveListing(archive.list_series, cache / "listing.json", self._note_gone)
        self._refused = JsonFile(cache / "refused.json")
        self._fetched = JsonFile(cache / "fetched.json")
        self._fetches: dict[str, Future[None]] = {}
        self._lock_fetches = threading.Lock()

    def name(self) -> str:
        return self.archive.url

    @property
    def image_folder(self) -> Path:
        return self.project.folder

    def list_images(self) -> list[str]:
        """Raises: HTTPException: 502, the archive has never answered."""
        return list(self._series())

    def _series(self) -> dict[str, Series]:
        try:
            return self.listing.series()
        except ArchiveError as error:
            raise HTTPException(502, str(error)) from error

    def status(self) -> dict[str, Any]:
        status = super().status()
        return status if self.listing.problem is None else status | {"problem": self.listing.problem}

    def images_at_hand(self) -> dict[str, Path]:
        names = (path.name for path in self._volumes.glob("*.nii.gz"))
        return {name.removesuffix(".nii.gz"): self._volumes / name for name in names}

    def image_path(self, image_id: str) -> Path | None:
        path = self._volume(image_id)
        return path if path.exists() else None

    def _volume(self, image_id: str) -> Path:
        return self._volumes / f"{image_id}.nii.gz"

    def image_files(self, image_id: str) -> list[Path]:
        """None: the series stays in the archive, and its volume can be fetched again."""
        return []

    def image_facts(self, image_id: str) -> dict[str, Any]:
        """Of its study and patient, which OHIF needs to open it."""
        series = self._series().get(image_id)
        facts = dict(series.facts) if series is not None else {}
        return {"SeriesInstanceUID": image_id, "name": f"{image_id}.nii.gz", **facts}

    def at_hand(self, image_id: str) -> Path | None:
        path = self._volume(image_id)
        return path if self._is_current(self._one(image_id), path) else None

    def _one(self, image_id: str) -> Series:
        series = self._series().get(image_id)
        if series is None:
            raise HTTPException(404, f"There is no series {image_id[:80]!r} in the archive.")
        return series

    def refusal(self, image_id: str) -> str | None:
        """As remembered, as long as the archive has the same number of instances."""
        return self._refusal_of(self._one(image_id))

    def get_image_uri(self, image_id: str) -> str:
        series, path = self._one(image_id), self._volume(image_id)
        if not self._is_current(series, path):
            self._fetch_once(series, path)
        return str(path)

    def _fetch_once(self, series: Series, path: Path) -> None:
        """Fetches, or waits for somebody else's fetch of the same series and shares its end."""
        with self._lock_fetches:
            fetch = self._fetches.get(series.uid)
            is_first = fetch is None
            fetch = self._fetches.setdefault(series.uid, Future())
        if not is_first:
            return fetch.result()
        try:
            if not self._is_current(series, path):
                self._fetch(series, path)
            fetch.set_result(None)
        except BaseException as error:
            fetch.set_exception(error)
            raise
        finally:
            with self._lock_fetches:
                del self._fetches[series.uid]

    def _is_current(self, series: Series, path: Path) -> bool:
        """Is the volume there, whole, and of as many instances as the archive has now?

        A series that was away from the list and is there again may be another one.
        """
        try:
            size = path.stat().st_size
        except OSError:
            return False
        fetched = self._fetched.get(series.uid)
        if fetched.get("bytes", size) != size:
            return False
        counts = (fetched.get("instances"), series.instances)
        same = not fetched.get("was_away") and (None in counts or counts[0] == counts[1])
        return same or not self.listing.is_fresh

    def _note_gone(self, uids: Iterable[str]) -> None:
        for uid in uids:
            if self._volume(uid).exists():
                self._fetched.change(uid, lambda kept: {**kept, "was_away": True})

    def _fetch(self, series: Series, path: Path) -> None:
        try:
            # The number of instances of just now: more may arrive while they are fetched.
            found = self.archive.find(series)
            if found is None:
                raise HTTPException(404, f"There is no series {series.uid!r} in the archive any more.")
            series = found
            if refusal := self._refusal_of(series):
                raise HTTPException(422, refusal)
            with tempfile.TemporaryDirectory(dir=self._volumes, prefix=f"{_FETCHING}{os.getpid()}-") as unfinished:
                folder, volume = Path(unfinished, "series"), Path(unfinished, path.name)
                self.archive.fetch(series, folder)
                series_to_nifti(folder, volume)
                with volume.open("rb") as file:
                    os.fsync(file.fileno())
                fetched = {"instances": series.instances, "bytes": volume.stat().st_size}
                os.replace(volume, path)
                self._fetched.change(series.uid, lambda kept: fetched)
        except ArchiveError as error:
            logger.error(error)
            raise HTTPException(502, str(error)) from error
        except SeriesError as error:
            self._refuse(series, str(error))
            raise HTTPException(422, str(error)) from error
        except OSError as error:
            raise HTTPException(
                507, f"The series could not be stored ({error.strerror}). Make room on the server's disk, then retry."
            ) from error

    def _refuse(self, series: Series, sentence: str) -> None:
        refusal = {"instances": series.instances, "sentence": sentence, "time": time.time()}
        try:
            self._refused.change(series.uid, lambda kept: refusal)
        except OSError as error:
            logger.warning("It is not recorded that %s was refused (%s).", series.uid, error.strerror)

    def _refusal_of(self, series: Series) -> str | None:
        refusal = self._refused.get(series.uid)
        if not refusal or refusal.get("instances") != series.instances:
            return None
        if series.instances is None and time.time() - refusal.get("time", 0) > ASK_AGAIN_S:
            return None
        return str(refusal.get("sentence"))

    @property
    def label_values(self) -> dict[str, int]:
        return label_values(self.labels)

    def headers(self, image_id: str) -> list[Dataset]:
        """The headers of the instances of a series. Raises: HTTPException: 404. ArchiveError."""
        return self.archive.headers(self._one(image_id))

    def share_mask(self, image_id: str) -> str | None:
        """Stores the final mask of a series in the archive, as DICOM SEG. An empty mask has none.

        Returns:
            Why that was not possible, a sentence; None where it was, or there was nothing to store.
        """
        try:
            mask = self.masks().load(image_id)
            if mask.array.any():
                segmentation = dicom_segmentation(mask, self.headers(image_id), self.label_values, by_hand=True)
                self.archive.store([segmentation])
        except (ArchiveError, MaskError, SegmentationError, VolumeError, OSError, HTTPException) as error:
            sentence = f"The mask is stored on the server, but not in the archive. {error}"
            logger.error("%s: %s", image_id, sentence)
            return sentence
        return None
