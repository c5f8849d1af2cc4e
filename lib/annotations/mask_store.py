"""Store masks durably: one file per image, with the names of its labels."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from lib.annotations.atomic_write import write_atomically
from lib.annotations.image_identity import Stamp, file_stamp
from lib.annotations.mask_file import (
    MaskError,
    MaskRecord,
    encoded_mask,
    named_record,
)
from lib.annotations.mask_values import labels_of_values, mapped_values, values_in, values_in_app
from lib.annotations.names import check_image_id, label_values
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, VolumeError, load_volume, read_geometry
from lib.geometry.volume_files import EXTENSIONS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CheckedMask:
    """Stored mask without its voxels.

    Attributes:
        path: a file of the mask with the app's values: the stored one, or a copy.
        record: of the stored file, with its values.
        geometry: grid of the mask.
    """

    path: Path
    record: MaskRecord
    geometry: ImageGeometry


class MaskStore:
    """Store of the masks of one tag in a folder, as `<image id>.nii.gz`.

    The names of the labels are in a NIfTI header extension, so that file and names are written in one step. A mask that
    a user put into the folder has no names: its values are those of `unnamed_labels`, in order. A new mask replaces the
    old one, which is kept in `history/`; `revert` restores it. A mask is flushed to disk and renamed into place before
    `save` returns.

    Args:
        labels: of the app. Masks are read with the values 1, 2, ... in this order.
        unnamed_labels: default `labels`.
        mapped: folder for copies of masks with other values than the app's, and for the values found in each mask; may
            be deleted at any time.
    """

    def __init__(
        self, folder: Path, labels: Sequence[str], mapped: Path, unnamed_labels: Sequence[str] | None = None
    ) -> None:
        self.folder = folder
        self.labels = tuple(labels)
        self.mapped = mapped
        self.unnamed_labels = tuple(labels if unnamed_labels is None else unnamed_labels)
        self._lock = FileLock(folder / ".lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, so that a mask can be made from the previous one.

        Raises:
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            yield

    def save(self, image_id: str, mask: Volume, record: MaskRecord) -> Path:
        """Store a mask (X, Y, Z) with the values of `record.labels`.

        Raises:
            ValueError: an image id that is not a plain name.
            MaskError: a value without a label.
            OSError: the disk is full or the folder cannot be written; the old mask is then intact.
        """
        kept_as = _history_name()
        path, content, values = self._encoded(image_id, mask, replace(record, replaced=kept_as))
        with self.locked():
            for file in self.files(image_id):
                self._keep(file, image_id, kept_as)
            self._put(image_id, path, content, values)
        return path

    def save_if(self, image_id: str, mask: Volume, record: MaskRecord, condition: Callable[[], bool]) -> bool:
        """Store a mask without an annotator if a condition holds; the previous mask is not kept in the history.

        Args:
            condition: called while the store is locked.

        Returns:
            The condition.

        Raises:
            ValueError, MaskError, OSError: see `save`.
        """
        path, content, values = self._encoded(image_id, mask, record)
        with self.locked():
            if not condition():
                return False
            self._put(image_id, path, content, values)
        return True

    def clear_unfinished(self) -> None:
        """Remove temporary files of killed processes."""
        with self.locked():
            for part in self.folder.glob(".*.part"):
                part.unlink(missing_ok=True)

    def _encoded(self, image_id: str, mask: Volume, record: MaskRecord) -> tuple[Path, bytes, list[float]]:
        """Return path and content of a mask's file, and the values in it.

        Raises:
            ValueError, MaskError: see `save`.
        """
        check_image_id(image_id)
        path = self.folder / f"{image_id}.nii.gz"
        values = values_in(mask.array)
        labels_of_values(values, record.labels, path.name)
        return path, encoded_mask(mask, record), values

    def _put(self, image_id: str, path: Path, content: bytes, values: Sequence[float]) -> None:
        """Replace the files of an image's masks by a new one."""
        before = self.files(image_id)
        write_atomically(path, content)
        for file in before:
            if file != path:
                file.unlink()
        self._keep_values(image_id, path, file_stamp(path), values)

    def revert(self, image_id: str) -> bool:
        """Restore the mask that the current one replaced, and move the current one to the history.

        Returns:
            False if the current mask had replaced none; the image then has no mask.

        Raises:
            FileNotFoundError: there is no mask.
            MaskError: it cannot be read.
            OSError: the file system refuses; the mask is then unchanged.
        """
        with self.locked():
            replaced = self.record(image_id).replaced
            kept = sorted(self.history_folder(image_id).glob(f"{replaced}.*")) if replaced else []
            present, now = self.files(image_id), _history_name()
            for file in present:
                self._keep(file, image_id, now)
            restored = {self.folder / f"{image_id}{file.name.removeprefix(str(replaced))}": file for file in kept}
            for place, file in restored.items():
                os.replace(file, place)
            for file in present:
                if file not in restored:
                    file.unlink()
        return bool(restored)

    def _keep(self, before: Path, image_id: str, name: str) -> None:
        folder = self.history_folder(image_id)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{name}{before.name.removeprefix(image_id)}"
        try:
            os.link(before, kept)
        except OSError:  # a file system without hard links; a full disk raises again
            shutil.copyfile(before, kept)

    def history_folder(self, image_id: str) -> Path:
        return self.folder / "history" / image_id

    def path(self, image_id: str) -> Path | None:
        """Return the file of an image's mask, with its stored values; the newest of several; None without any."""
        return max(self.files(image_id), key=lambda path: path.stat().st_mtime_ns, default=None)

    def files(self, image_id: str) -> list[Path]:
        """Return all files of masks of an image, also those added by users."""
        candidates = (self.folder / f"{image_id}{extension}" for extension in EXTENSIONS)
        return [path for path in candidates if path.is_file()]

    def paths(self) -> dict[str, Path]:
        """Return the file of each image with a mask, as `path` does."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder) if entry.is_file())
        except FileNotFoundError:
            return {}
        found: dict[str, list[str]] = {}
        for name in names:
            extension = next((extension for extension in EXTENSIONS if name.endswith(extension)), None)
            if extension is not None and not name.startswith("."):
                found.setdefault(name.removesuffix(extension), []).append(name)
        paths = {i: self.folder / of[0] if len(of) == 1 else self.path(i) for i, of in found.items()}
        return {image_id: path for image_id, path in paths.items() if path is not None}

    def record(self, image_id: str) -> MaskRecord:
        """Return the record of an image's mask.

        Raises:
            FileNotFoundError: there is no mask.
            MaskError: it cannot be read.
        """
        return _record(self._existing(image_id), self.unnamed_labels)

    def load(self, image_id: str) -> Volume:
        """Load the mask (X, Y, Z) with the app's values.

        Raises:
            FileNotFoundError: there is no mask.
            MaskError: it cannot be read, or contains a label that the app does not have.
        """
        path = self._existing(image_id)
        volume, record = _read(path), _record(path, self.unnamed_labels)
        return Volume(mapped_values(volume.array, record.labels, self.labels, path.name), volume.geometry)

    def checked(self, image_id: str) -> CheckedMask:
        """Return the mask without reading its voxels, which were checked when it was stored.

        The voxels of a file that a user added or changed are read and checked once. A mask with other values than the
        app's is copied once.

        Raises:
            FileNotFoundError: there is no mask.
            MaskError: it cannot be read, or contains a label that the app does not have.
            OSError: the copy cannot be written.
        """
        path = self._existing(image_id)
        stamp = file_stamp(path)
        record = _record(path, self.unnamed_labels)
        values = self._kept_values(image_id, path, stamp)
        if values is None:
            values = values_in(_read(path).array)
            self._keep_values(image_id, path, stamp, values)
        app_values = values_in_app(values, record.labels, self.labels, path.name)
        if any(value != in_app for value, in_app in app_values.items()):
            path = self._app_copy(image_id, stamp, record)
        return CheckedMask(path, record, _geometry(path))

    def app_path(self, image_id: str) -> Path:
        """Return a file of the mask with the app's values: the stored one, or a copy in `mapped`.

        Raises:
            FileNotFoundError, MaskError, OSError: see `checked`.
        """
        return self.checked(image_id).path

    def _app_copy(self, image_id: str, stamp: Stamp | None, record: MaskRecord) -> Path:
        # The name depends on the labels: another server of this project may have other labels, and needs its own copy.
        version = repr((stamp, sorted(record.labels.items()), self.labels)).encode()
        copy = self.mapped / f"{image_id}.{hashlib.sha256(version).hexdigest()[:16]}.nii.gz"
        if not copy.exists():
            in_app = MaskRecord(label_values(self.labels), record.annotator, record.created)
            write_atomically(copy, encoded_mask(self.load(image_id), in_app))
        return copy

    def _values_path(self, image_id: str) -> Path:
        return self.mapped / f"{image_id}.values.json"

    def _keep_values(self, image_id: str, path: Path, stamp: Stamp | None, values: Sequence[float]) -> None:
        content = {"file": path.name, "stamp": stamp, "values": values}
        try:
            write_atomically(self._values_path(image_id), json.dumps(content).encode())
        except OSError as error:
            logger.warning("The check of the mask %s is not recorded on disk (%s).", path.name, error.strerror)

    def _kept_values(self, image_id: str, path: Path, stamp: Stamp | None) -> list[float] | None:
        """Return the recorded values other than 0 in a file; None if they are unknown."""
        try:
            content = json.loads(self._values_path(image_id).read_bytes())
            if (content["file"], content["stamp"]) == (path.name, list(stamp or ())):
                return [float(value) for value in content["values"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        return None

    def mapped_files(self, image_id: str) -> list[Path]:
        """Return the files in `mapped` of an image."""
        copies = self.mapped.glob(f"{glob.escape(image_id)}.{'[0-9a-f]' * 16}.nii.gz")
        values = self._values_path(image_id)
        return [*copies, *([values] if values.exists() else [])]

    def _existing(self, image_id: str) -> Path:
        path = self.path(image_id)
        if path is None:
            raise FileNotFoundError(f"There is no mask of {image_id!r}.")
        return path


def _history_name() -> str:
    """Return the name in the history of a mask that is replaced now."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def _read(path: Path) -> Volume:
    try:
        return load_volume(path, sentinels=False)
    except VolumeError as error:
        raise MaskError(str(error)) from error


def _geometry(path: Path) -> ImageGeometry:
    try:
        return read_geometry(path)
    except VolumeError as error:
        raise MaskError(str(error)) from error


def _record(path: Path, unnamed_labels: Sequence[str]) -> MaskRecord:
    return named_record(path) or MaskRecord(label_values(unnamed_labels))
