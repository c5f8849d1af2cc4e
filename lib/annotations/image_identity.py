"""Identify an image by a checksum of its voxels."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from pathlib import Path

import numpy as np

from lib.annotations.atomic_write import write_atomically
from lib.geometry.volume import load_volume

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


def voxel_checksum(array: np.ndarray) -> str:
    """Return the checksum of voxels (X, Y, Z) float32, independent of the file's format and compression."""
    digest = hashlib.sha256(repr(array.shape).encode())
    # In Fortran order, which is that of `load_volume`, so that its arrays are not copied.
    digest.update(np.ascontiguousarray(array.T, np.float32).data)
    return f"sha256:{digest.hexdigest()}"


class ImageIdentities:
    """Voxel checksums of image files, cached until the size or a time of the file changes.

    Args:
        path: JSON file of the cache; a damaged one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Stamp, str]] = _load(path)

    def checksum(self, image_path: Path, array: np.ndarray | None = None, stamp: Stamp | None = None) -> str:
        """Return the checksum of an image.

        Args:
            array: its voxels (X, Y, Z), if the caller has read them already.
            stamp: `file_stamp` from before `array` was read, because the file may have been replaced since.

        Raises:
            VolumeError: the image cannot be read.
        """
        stamp = file_stamp(image_path) if array is None else stamp
        known = self._known_as(image_path, stamp)
        if known is not None:
            return known
        checksum = voxel_checksum(load_volume(image_path).array if array is None else array)
        if stamp is not None:
            self._keep(str(image_path), stamp, checksum)
        return checksum

    def known(self, image_path: Path) -> str | None:
        """Return the checksum from the cache, or None."""
        return self._known_as(image_path, file_stamp(image_path))

    def _known_as(self, image_path: Path, stamp: Stamp | None) -> str | None:
        with self._lock:
            kept = self._known.get(str(image_path))
        return kept[1] if kept is not None and kept[0] == stamp else None

    def _keep(self, name: str, stamp: Stamp, checksum: str) -> None:
        with self._lock:
            self._known[name] = (stamp, checksum)
            content = {key: [*kept, value] for key, (kept, value) in self._known.items()}
            try:
                write_atomically(self.path, json.dumps(content).encode())
            except OSError as error:
                logger.warning("The checksums of the images are not kept on disk (%s).", error.strerror)


def file_stamp(path: Path) -> Stamp | None:
    """Return size and times of a file, which change when it is changed or replaced; None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    # With st_ctime, because a copy may keep the modification time of its original.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _load(path: Path) -> dict[str, tuple[Stamp, str]]:
    try:
        content = json.loads(path.read_bytes())
        return {
            str(name): ((int(size), int(modified), int(changed)), str(value))
            for name, (size, modified, changed, value) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
