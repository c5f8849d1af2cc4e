"""The durable store of masks that annotators submitted: one file per image, which names its own labels."""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from filelock import FileLock

from lib.annotations.atomic_write import write_atomically
from lib.annotations.json_check import finite_json
from lib.annotations.names import check_image_id, label_values
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, VolumeError, load_volume
from lib.geometry.volume_files import EXTENSIONS

logger = logging.getLogger(__name__)

GRID_TOLERANCE_VOXELS = 0.1
_COMMENT = 6  # code of a NIfTI header extension of plain text
_KIND = "inextremis mask"


class MaskError(ValueError):
    """A mask that cannot be stored or used; its text is for the user."""


@dataclass(frozen=True)
class MaskRecord:
    """What a stored mask says of itself.

    Attributes:
        labels: the value of each label in the mask; these are the labels that it is about.
        image_checksum: of the voxels of its image (`voxel_checksum`), or None where it was not recorded.
    """

    labels: Mapping[str, int]
    annotator: str = "unknown"
    created: str = ""
    image_checksum: str | None = None
    info: Mapping[str, Any] | None = None


class MaskStore:
    """Masks of one tag in a folder, as `<image id>.nii.gz`.

    A mask holds the names of its labels in a NIfTI header extension, so that file and names are written in one step.
    A mask that was put into the folder by hand has none: its values are those of `unnamed_labels`, in order.
    A new mask replaces the old one, which stays in `history/`. A mask is flushed to disk and renamed into place before
    `save` returns.

    Args:
        labels: of the app. Masks are read with the values 1, 2, ... in this order.
        unnamed_labels: default `labels`.
        mapped: folder for copies of masks with other values than the app's; may be deleted at any time.
    """

    def __init__(
        self, folder: Path, labels: Sequence[str], mapped: Path, unnamed_labels: Sequence[str] | None = None
    ) -> None:
        self.folder = folder
        self.labels = tuple(labels)
        self.mapped = mapped
        self.unnamed_labels = tuple(labels if unnamed_labels is None else unnamed_labels)

    def save(self, image_id: str, mask: Volume, record: MaskRecord) -> Path:
        """Stores a mask (X, Y, Z) with the values of `record.labels`.

        Raises:
            ValueError: an image id that is not a plain name.
            OSError: the disk is full or the folder cannot be written; the mask before is then as it was.
        """
        check_image_id(image_id)
        path = self.folder / f"{image_id}.nii.gz"
        content = _encoded(mask, record)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            before = self.files(image_id)
            for file in before:
                self._keep(file, image_id)
            write_atomically(path, content)
            for file in before:
                if file != path:
                    file.unlink()
        return path

    def _keep(self, before: Path, image_id: str) -> None:
        folder = self.history_folder(image_id)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}{before.name.removeprefix(image_id)}"
        try:
            os.link(before, kept)
        except OSError:  # a file system without hard links, or a full disk, which raises again
            shutil.copyfile(before, kept)

    def history_folder(self, image_id: str) -> Path:
        return self.folder / "history" / image_id

    def path(self, image_id: str) -> Path | None:
        """The file of an image's mask, with whatever values it was stored; the newest of several; None without any."""
        return max(self.files(image_id), key=lambda path: path.stat().st_mtime_ns, default=None)

    def files(self, image_id: str) -> list[Path]:
        """All files of masks of an image; somebody may have put one beside that of the server."""
        candidates = (self.folder / f"{image_id}{extension}" for extension in EXTENSIONS)
        return [path for path in candidates if path.is_file()]

    def paths(self) -> dict[str, Path]:
        """The file of each image that has a mask, as `path` gives it."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder) if entry.is_file())
        except FileNotFoundError:
            return {}
        ids = {
            name.removesuffix(extension)
            for extension in EXTENSIONS
            for name in names
            if name.endswith(extension) and not name.startswith(".")
        }
        return {image_id: path for image_id in ids if (path := self.path(image_id)) is not None}

    def record(self, image_id: str) -> MaskRecord:
        """Raises: FileNotFoundError: there is no mask. MaskError: it cannot be read."""
        return _record(self._existing(image_id), self.unnamed_labels)

    def load(self, image_id: str) -> Volume:
        """The mask (X, Y, Z) with the app's values.

        Raises:
            FileNotFoundError: there is no mask.
            MaskError: it cannot be read, or holds a label that the app does not have.
        """
        path = self._existing(image_id)
        volume, record = _read(path), _record(path, self.unnamed_labels)
        return Volume(mapped_values(volume.array, record.labels, self.labels, path.name), volume.geometry)

    def app_path(self, image_id: str) -> Path:
        """A file of the mask with the app's values: the stored one, or a copy in `mapped`.

        Raises:
            FileNotFoundError, MaskError: see `load`.
            OSError: the copy cannot be written.
        """
        path, mask = self._existing(image_id), self.load(image_id)
        record = _record(path, self.unnamed_labels)
        app_values = label_values(self.labels)
        if all(app_values.get(label) == value for label, value in record.labels.items()):
            return path
        content = _encoded(mask, MaskRecord(app_values, record.annotator, record.created))
        # Another server of this project, with other labels, has a copy of its own.
        copy = self.mapped / f"{image_id}.{hashlib.sha256(content).hexdigest()[:16]}.nii.gz"
        if not copy.exists():
            write_atomically(copy, content)
        return copy

    def mapped_files(self, image_id: str) -> list[Path]:
        """The copies of an image's mask with other values."""
        return list(self.mapped.glob(f"{glob.escape(image_id)}.{'[0-9a-f]' * 16}.nii.gz"))

    def _existing(self, image_id: str) -> Path:
        path = self.path(image_id)
        if path is None:
            raise FileNotFoundError(f"There is no mask of {image_id!r}.")
        return path


def mapped_values(array: np.ndarray, labels: Mapping[str, int], app_labels: Sequence[str], name: str) -> np.ndarray:
    """The values of a mask (X, Y, Z) replaced by the app's, as uint8.

    Args:
        labels: value of each label in `array`.
        app_labels: become 1, 2, ...
        name: of the mask, for the sentence.

    Raises:
        MaskError: a value that no label has, or a label that the app does not have.
    """
    label_of = {value: label for label, value in labels.items()}
    result = np.zeros(array.shape, np.uint8)
    for value in np.unique(array[array != 0]).tolist():
        label = label_of.get(int(value)) if float(value).is_integer() else None
        if label is None:
            known = ", ".join(f"{index} for {label}" for label, index in labels.items())
            raise MaskError(f"The mask {name} holds the value {value:g}; expected 0, {known[:200]}.")
        if label not in app_labels:
            raise MaskError(
                f"The mask {name} holds the label {label[:80]!r}, and this app has {', '.join(app_labels)}; start the "
                "server with a label of this name."
            )
        result[array == value] = app_labels.index(label) + 1
    return result


def _encoded(mask: Volume, record: MaskRecord) -> bytes:
    image = nib.Nifti1Image(mask.array.astype(np.uint8), mask.geometry.affine_ras)
    image.set_qform(mask.geometry.affine_ras, code=1)
    image.set_sform(mask.geometry.affine_ras, code=1)
    image.header.set_xyzt_units("mm")
    content = {
        "kind": _KIND,
        "labels": dict(record.labels),
        "annotator": record.annotator,
        "created": record.created or datetime.now(UTC).isoformat(timespec="milliseconds"),
        "image_checksum": record.image_checksum,
        "info": dict(record.info or {}),
    }
    image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, json.dumps(content).encode()))
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _read(path: Path) -> Volume:
    try:
        return load_volume(path, sentinels=False)
    except VolumeError as error:
        raise MaskError(str(error)) from error


def _record(path: Path, unnamed_labels: Sequence[str]) -> MaskRecord:
    return named_record(path) or MaskRecord(label_values(unnamed_labels))


def named_record(path: Path) -> MaskRecord | None:
    """What a mask's file says of itself, or None for one that this module has not written.

    Raises:
        MaskError: it cannot be read.
    """
    if path.name.endswith(".nrrd"):
        return None
    try:
        header: Any = nib.load(path).header
        extensions = header.extensions
    except Exception as error:  # a damaged file fails as its reader likes
        raise MaskError(f"The mask {path.name} cannot be read ({error}).") from error
    for extension in extensions:
        try:
            content = finite_json(extension.get_content())
            if content["kind"] == _KIND:
                return MaskRecord(
                    {str(label): int(value) for label, value in content["labels"].items()},
                    str(content["annotator"]),
                    str(content["created"]),
                    None if content["image_checksum"] is None else str(content["image_checksum"]),
                    dict(content["info"]),
                )
        except (RecursionError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def require_grid(mask: ImageGeometry, geometry: ImageGeometry, name: str) -> None:
    """Raises: MaskError: the mask does not lie on the grid of its image, up to the rounding of file formats."""
    apart = geometry.voxels_apart(mask)
    if not apart <= GRID_TOLERANCE_VOXELS:
        size, expected = (" x ".join(map(str, shape)) for shape in (mask.shape, geometry.shape))
        differs = f"{size} voxels; the image has {expected}" if size != expected else f"{apart:.2f} voxels apart"
        raise MaskError(f"The mask {name} is not on the grid of its image ({differs}); resample it to the image.")
