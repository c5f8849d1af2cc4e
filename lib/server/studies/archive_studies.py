"""Serve the series of a DICOMweb archive as studies, with their volumes in a cache folder."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastapi import HTTPException
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from lib.annotations.atomic_write import write_atomically
from lib.annotations.json_file import JsonFile
from lib.annotations.mask_file import MaskError
from lib.annotations.names import label_values
from lib.exchange.dicom_seg import dicom_segmentation
from lib.exchange.segment_origin import SegmentOrigin, origins_of_final
from lib.exchange.series_frames import SegmentationError, Source
from lib.geometry.dicom_frames import SeriesError
from lib.geometry.dicom_series import SeriesVolume, read_series
from lib.geometry.volume import Volume, VolumeError
from lib.server.archive.archive import Archive, Series
from lib.server.archive.archive_errors import ArchiveError
from lib.server.archive.archive_listing import ArchiveListing
from lib.server.archive.series_images import SeriesImages, series_and_volume, series_refusal
from lib.server.archive.series_images import image_id as image_id_of
from lib.server.archive.series_names import name_and_detail
from lib.server.http.disk_full import writing
from lib.server.http.refusals import answered_with
from lib.server.process.private_folder import is_left_over
from lib.server.project import FINAL_TAG, Project, ProjectIdentity
from lib.server.studies.datastore import Shown, Studies

logger = logging.getLogger(__name__)

_FETCHING = ".fetching-"

ASK_AGAIN_S = 600.0
"""Time after which a refused series is fetched again if the archive does not return its number of instances."""


class ArchiveStudies(Studies):
    """Series of an archive.

    An image id is the UID of a series. If an opened series has several volumes or tilted slices, each of its volumes
    becomes an image (`lib.server.archive.series_images`).

    Args:
        cache: folder of the fetched volumes.
        codes: DICOM code of each label, for segmentations; default: tissue.
    """

    def __init__(
        self,
        archive: Archive,
        cache: Path,
        project: Project,
        identity: ProjectIdentity,
        labels: Sequence[str],
        codes: Mapping[str, Code] = MappingProxyType({}),
        readers: int = 1,
    ) -> None:
        super().__init__(project, identity, labels, readers)
        self.archive = archive
        self.cache = cache
        self.codes = codes
        self._volumes = cache / "volumes"
        self._volumes.mkdir(parents=True, exist_ok=True)
        for left in self._volumes.glob(f"{_FETCHING}*"):
            if is_left_over(left, _FETCHING):  # not if its process is still running
                shutil.rmtree(left, ignore_errors=True)
        self.listing = ArchiveListing(archive.list_series, cache / "listing.json", self._note_gone)
        self._images = SeriesImages(project.series_images)
        self._refused = JsonFile(cache / "refusals.json")
        self._fetched = JsonFile(cache / "fetched.json")
        self._fetches: dict[str, Future[None]] = {}
        self._lock_fetches = threading.Lock()

    def name(self) -> str:
        return self.archive.url

    @property
    def image_folder(self) -> Path:
        return self.project.folder

    def list_images(self) -> list[str]:
        """Return the ids of all images.

        Raises:
            HTTPException: 502, the archive has never answered.
        """
        return self._images.of_all(self._series())

    def _series(self) -> dict[str, Series]:
        with answered_with(502, ArchiveError):
            return self.listing.series()

    def status(self) -> dict[str, Any]:
        status = super().status()
        return status if self.listing.problem is None else status | {"problem": self.listing.problem}

    def local_images(self) -> dict[str, Path]:
        names = (path.name for path in self._volumes.glob("*.nii.gz"))
        return {name.removesuffix(".nii.gz"): self._volumes / name for name in names}

    def image_path(self, image_id: str) -> Path | None:
        path = self._volume(image_id)
        return path if path.exists() else None

    def _volume(self, image_id: str) -> Path:
        return self._volumes / f"{image_id}.nii.gz"

    def _sources_path(self, image_id: str) -> Path:
        """Return the file that lists the frames of an image that is one of several volumes."""
        return self._volumes / f"{image_id}.sources.json"

    def image_files(self, image_id: str) -> list[Path]:
        """Return no files: the series stays in the archive, and its volume can be fetched again."""
        return []

    def image_facts(self, image_id: str) -> dict[str, Any]:
        """Return the attributes of an image's study and patient, which OHIF needs to open it."""
        uid, _ = series_and_volume(image_id)
        series = self._series().get(uid)
        facts: dict[str, Any] = dict(series.facts) if series is not None else {}
        if (sources := self._sources(image_id)) is not None:
            facts["sources"] = sources
        return {"SeriesInstanceUID": uid, "name": f"{image_id}.nii.gz", **facts}

    def _sources(self, image_id: str) -> list[Source] | None:
        if not series_and_volume(image_id)[1]:
            return None
        try:
            return [(str(uid), int(frame)) for uid, frame in json.loads(self._sources_path(image_id).read_bytes())]
        except (OSError, ValueError, TypeError):
            return None

    def local_file(self, image_id: str) -> Path | None:
        series = self._one(image_id)
        is_there = image_id in self._images.of(series.uid) and self._is_current(series, image_id)
        return self._volume(image_id) if is_there else None

    def _one(self, image_id: str) -> Series:
        """Return the series of an image.

        Raises:
            HTTPException: 404, the archive has no such series.
        """
        series = self._series().get(series_and_volume(image_id)[0])
        if series is None:
            raise HTTPException(404, f"There is no series {image_id[:80]!r} in the archive.")
        return series

    def refusal(self, image_id: str) -> str | None:
        """Return the recorded reason why an image cannot be opened; None if there is none."""
        series = self._one(image_id)
        return _refusal(series, self._refused.get(series.uid)) or self._why_no_image(series, image_id)

    def shown(self, until: float = 0.0) -> dict[str, Shown]:
        series, refused = self._series(), self._refused.items()
        return {image_id: _shown(image_id, series, refused) for image_id in self._images.of_all(series)}

    def _why_no_image(self, series: Series, image_id: str) -> str | None:
        """Return the reason why a series is no image if its volumes are images instead."""
        images = self._images.of(series.uid)
        return series_refusal(series.uid, images) if image_id == series.uid and image_id not in images else None

    def get_image_uri(self, image_id: str) -> str:
        series = self._one(image_id)
        images = self._images.of(series.uid)
        looked_at = image_id if image_id in images else images[0]
        if not self._is_current(series, looked_at):
            self._fetch_once(series, looked_at)
        if sentence := self._why_no_image(series, image_id):
            raise HTTPException(422, sentence)
        images = self._images.of(series.uid)
        if image_id not in images:
            raise HTTPException(404, f"There is no image {image_id[:150]!r}; the series holds {', '.join(images[:8])}.")
        return str(self._volume(image_id))

    def _fetch_once(self, series: Series, image_id: str) -> None:
        """Fetch a series, or wait for the fetch of another thread and share its result or error."""
        with self._lock_fetches:
            fetch = self._fetches.get(series.uid)
            is_first = fetch is None
            fetch = self._fetches.setdefault(series.uid, Future())
        if not is_first:
            return fetch.result()
        try:
            if not self._is_current(series, image_id):
                with writing("The series"):
                    self._fetch(series)
            fetch.set_result(None)
        except BaseException as error:  # other threads wait for the result
            fetch.set_exception(error)
            raise
        finally:
            with self._lock_fetches:
                del self._fetches[series.uid]

    def _is_current(self, series: Series, image_id: str) -> bool:
        """Tell whether the cached volume is complete and has as many instances as the archive lists.

        A series that has disappeared from the list and come back may have other voxels, and is not current.
        """
        try:
            size = self._volume(image_id).stat().st_size
        except OSError:
            return False
        fetched = self._fetched.get(image_id)
        if fetched.get("bytes", size) != size:
            return False
        counts = (fetched.get("instances"), series.instances)
        same = not fetched.get("was_away") and (None in counts or counts[0] == counts[1])
        return same or not self.listing.is_fresh

    def _note_gone(self, uids: Iterable[str]) -> None:
        for image in self._images.of_all(uids):
            if self._volume(image).exists():
                self._fetched.change(image, lambda kept: {**kept, "was_away": True})

    def _fetch(self, series: Series) -> None:
        try:
            # Search again for the current number of instances: more may arrive during the fetch.
            found = self.archive.find(series)
            if found is None:
                raise HTTPException(404, f"There is no series {series.uid!r} in the archive any more.")
            series = found
            if refusal := _refusal(series, self._refused.get(series.uid)):
                raise HTTPException(422, refusal)
            with tempfile.TemporaryDirectory(dir=self._volumes, prefix=f"{_FETCHING}{os.getpid()}-") as unfinished:
                folder = Path(unfinished, "series")
                self.archive.fetch(series, folder)
                volumes = read_series(folder)
                for volume in volumes:
                    self._put(series, volume, Path(unfinished, "volume.nii.gz"))
            self._images.keep(series.uid, [volume.name for volume in volumes])
            self._drop_others(series.uid)
        except ArchiveError as error:
            logger.error(error)
            raise HTTPException(502, str(error)) from error
        except SeriesError as error:
            self._refuse(series, str(error))
            raise HTTPException(422, str(error)) from error

    def _drop_others(self, uid: str) -> None:
        """Delete cached volumes that the series does not contain any more."""
        images = self._images.of(uid)
        for path in (self._volume(uid), *self._volumes.glob(f"{uid}_*.nii.gz")):
            if path.name.removesuffix(".nii.gz") not in images:
                path.unlink(missing_ok=True)

    def _put(self, series: Series, volume: SeriesVolume, unfinished: Path) -> None:
        """Write a volume, and the list of its frames, into the cache.

        Raises:
            SeriesError: the volume cannot be made.
            OSError: it cannot be written.
        """
        image = image_id_of(series.uid, volume.name)
        volume.write(unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        fetched = {"instances": series.instances, "bytes": unfinished.stat().st_size}
        if volume.name:
            sources = [(frame.instance, frame.number) for frame in volume.frames]
            write_atomically(self._sources_path(image), json.dumps(sources).encode())
        os.replace(unfinished, self._volume(image))
        self._fetched.change(image, lambda kept: fetched)

    def _refuse(self, series: Series, sentence: str) -> None:
        refusal = {"instances": series.instances, "sentence": sentence, "time": time.time()}
        try:
            self._refused.change(series.uid, lambda kept: refusal)
        except OSError as error:
            logger.warning("The refusal of %s could not be saved (%s).", series.uid, error.strerror)

    def segmentation(self, image_id: str, mask: Volume, origins: Mapping[str, SegmentOrigin]) -> Dataset:
        """Convert a mask of an image to DICOM SEG.

        Raises:
            HTTPException: 404, the archive has no such series.
            ArchiveError: the archive does not answer or refuses the request.
            SegmentationError: the mask cannot be converted.
        """
        headers = self.archive.headers(self._one(image_id))
        sources = self._sources(image_id)
        return dicom_segmentation(mask, headers, label_values(self.labels), origins, self.codes, sources)

    def share_mask(self, image_id: str) -> str | None:
        """Store the final mask of a series in the archive, as DICOM SEG, unless the mask is empty.

        Returns:
            Sentence that says why it could not be stored; None if it was stored or is empty.
        """
        try:
            mask = self.masks().load(image_id)
            if mask.array.any():
                origins = origins_of_final(self.get_label_info(image_id, FINAL_TAG))
                self.archive.store([self.segmentation(image_id, mask, origins)])
        except (ArchiveError, MaskError, SegmentationError, VolumeError, OSError, HTTPException) as error:
            sentence = f"The mask is stored on the server, but not in the archive. {error}"
            logger.error("%s: %s", image_id, sentence)
            return sentence
        return None


def _refusal(series: Series, kept: Mapping[str, Any]) -> str | None:
    """Return the sentence of a recorded refusal, if the archive still has the same number of instances."""
    if not kept or kept.get("instances") != series.instances:
        return None
    if series.instances is None and time.time() - kept.get("time", 0) > ASK_AGAIN_S:
        return None
    return str(kept.get("sentence"))


def _shown(image_id: str, series: Mapping[str, Series], refused: Mapping[str, Mapping[str, Any]]) -> Shown:
    """Return the row of an image: patient and description; date, modality and description of its study."""
    uid, _ = series_and_volume(image_id)
    name, detail = name_and_detail(image_id, series[uid].facts, f"series …{uid[-6:]}")
    return Shown(name, detail, _refusal(series[uid], refused.get(uid, {})))
