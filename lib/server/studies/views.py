"""Cache scans and thumbnails on disk in the form that the annotation page loads."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lib.annotations.image_identity import Stamp, file_stamp
from lib.data.bounded_folder import make_room
from lib.geometry.volume import open_header
from lib.geometry.volume_view import can_be_served_as_is, middle_axial_slice, write_view

VERSION = 1
"""Version of the format; files of other versions are not read."""

DEFAULT_LIMIT_BYTES = 10 * 2**30
THUMBNAIL_PIXELS = 96

_SCAN, _PICTURE = ".nii.gz", ".png"


@dataclass(frozen=True)
class View:
    """File to send.

    Attributes:
        version: a text that changes with the image.
    """

    path: Path
    version: str


class Views:
    """Cache of views. The key is the image id, and the size and times of the image's file.

    Several processes may share the folder. Threads that request the same view wait for each other.

    Args:
        folder: created if missing. It may be deleted at any time.
        limit_bytes: size at which the least recently used files are deleted.
    """

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._as_is: dict[Path, tuple[Stamp, bool]] = {}

    def version(self, image_path: Path) -> str:
        """Return the version of the views of an image.

        Raises:
            VolumeError: its file is missing.
        """
        stamp = file_stamp(image_path)
        if stamp is None:
            open_header(image_path)  # raises the error
        return _digest(f"{VERSION} {image_path.name} {stamp}")

    def known_bytes(self, image_id: str, image_path: Path) -> int | None:
        """Return the size of the view of an image; None if it is not in the cache.

        Raises:
            VolumeError: the image is missing.
        """
        made = self._path(image_id, self.version(image_path), _SCAN)
        with suppress(OSError):
            return (image_path if self._is_known_as_is(image_path) else made).stat().st_size
        return None

    def scan(self, image_id: str, image_path: Path) -> View:
        """Return the view of an image, a .nii.gz file: the image's file if the page can load it, or a converted one.

        Raises:
            VolumeError: the image cannot be read.
            OSError: the view cannot be written.
        """
        version = self.version(image_path)
        with self._only_here(image_id):
            if self._serves_as_is(image_path):
                return View(image_path, version)
            return View(self._made(image_id, version, _SCAN, lambda part: write_view(image_path, part)), version)

    def thumbnail(self, image_id: str, image_path: Path) -> View:
        """Return a PNG of the middle axial slice, seen from the feet, of at most `THUMBNAIL_PIXELS` in each direction.

        Raises:
            VolumeError: the image cannot be read.
            OSError: the thumbnail cannot be written.
        """
        version = self.version(image_path)
        with self._only_here(f"{image_id}{_PICTURE}"):

            def make(part: Path) -> None:
                part.write_bytes(_picture(image_path))

            return View(self._made(image_id, version, _PICTURE, make), version)

    def forget(self, image_id: str) -> None:
        """Delete the cached files of an image."""
        for path in self.folder.glob(f"{_digest(image_id)}-*"):
            path.unlink(missing_ok=True)

    def _path(self, image_id: str, version: str, extension: str) -> Path:
        return self.folder / f"{_digest(image_id)}-{version}{extension}"

    def _made(self, image_id: str, version: str, extension: str, make: Callable[[Path], None]) -> Path:
        path = self._path(image_id, version, extension)
        if path.exists():
            with suppress(OSError):  # the file belongs to another user
                os.utime(path)
            return path
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{secrets.token_hex(8)}.part"
        try:
            make(part)
            make_room(self.folder, [f"*{_SCAN}", f"*{_PICTURE}"], self.limit_bytes, new_bytes=0)  # counts the part too
            for before in self.folder.glob(f"{_digest(image_id)}-*{extension}"):
                before.unlink(missing_ok=True)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _serves_as_is(self, image_path: Path) -> bool:
        stamp = file_stamp(image_path)
        known = self._as_is.get(image_path)
        if known is None or known[0] != stamp:
            if stamp is None:
                return False
            known = self._as_is[image_path] = (stamp, can_be_served_as_is(image_path))
        return known[1]

    def _is_known_as_is(self, image_path: Path) -> bool:
        known = self._as_is.get(image_path)
        return known is not None and known == (file_stamp(image_path), True)

    def _only_here(self, name: str) -> threading.Lock:
        with self._lock:
            return self._locks[name]


def _picture(image_path: Path) -> bytes:
    slice_, (row_mm, column_mm) = middle_axial_slice(image_path)
    low, high = np.percentile(slice_, (1, 99.5))
    grey = np.clip((slice_ - low) / max(high - low, 1e-6), 0, 1) * 255
    height_mm, width_mm = slice_.shape[0] * row_mm, slice_.shape[1] * column_mm
    pixels_per_mm = THUMBNAIL_PIXELS / max(height_mm, width_mm)
    size = (max(1, round(width_mm * pixels_per_mm)), max(1, round(height_mm * pixels_per_mm)))
    buffer = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BOX).save(buffer, "PNG")
    return buffer.getvalue()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
