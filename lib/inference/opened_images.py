"""Open images from a cache on disk, on their own grid and on the network's grid."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib.annotations.image_identity import ImageIdentities, file_stamp, voxel_checksum
from lib.data.grid import network_image
from lib.data.prepared_scans import PreparedScans, PreparedVolume
from lib.geometry.image_geometry import ImageGeometry, Spacing
from lib.geometry.volume import Volume, as_int16_if_exact, load_volume, read_geometry

_OWN_VOXELS = "own voxels"
_MAX_BYTES = 2**30
"""Larger images are not cached, because this needs as much memory again."""


class _NotKeptError(LookupError):
    """The voxels of an image are not in the cache."""


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """Image with its checksum.

    Attributes:
        volume: voxels are float32, or int16 if that is exact; they may be memory-mapped.
        checksum: checksum of the voxels; None if the image is not cached.
    """

    path: Path
    volume: Volume
    checksum: str | None


class OpenedImages:
    """Opener of images with a cache, from which voxels are memory-mapped.

    Threads that open the same image wait for each other.

    Args:
        prepared: the cache.
        identities: checksums of image files.
    """

    def __init__(self, prepared: PreparedScans, identities: ImageIdentities) -> None:
        self.prepared = prepared
        self.identities = identities
        self._lock = threading.Lock()
        self._locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)

    def open(self, path: Path, *, keep: bool = True) -> OpenedImage:
        """Open an image.

        Args:
            keep: store it in the cache.

        Raises:
            VolumeError: the image cannot be read.
        """
        if not keep:
            return OpenedImage(path, load_volume(path), None)
        with self._only_here(path):
            known = self.identities.known(path)
            if known is not None:
                try:
                    return OpenedImage(path, self._own(known, read_geometry(path), _not_kept), known)
                except _NotKeptError:
                    pass
            volume, checksum = self._read(path)
            if volume.array.nbytes > _MAX_BYTES:
                return OpenedImage(path, volume, checksum)
            return OpenedImage(path, self._own(checksum, volume.geometry, lambda: _stored(volume)), checksum)

    def on_grid(self, image: OpenedImage, spacing_mm: Spacing) -> PreparedVolume:
        """Return the image on a network's grid.

        Raises:
            VolumeError: the image cannot be resampled.
        """
        if image.checksum is None:
            voxels, affine = network_image(image.volume, spacing_mm)
            return PreparedVolume(voxels, affine, {})
        with self._only_here(image.path):
            return self.prepared.image(image.path, image.checksum, spacing_mm)

    def _own(
        self, checksum: str, geometry: ImageGeometry, make: Callable[[], tuple[torch.Tensor, np.ndarray]]
    ) -> Volume:
        kept = self.prepared.volume(checksum, _OWN_VOXELS, geometry.spacing_mm, make)
        return Volume(kept.voxels.numpy().T, geometry)

    def _read(self, path: Path) -> tuple[Volume, str]:
        stamp = file_stamp(path)
        volume = load_volume(path)
        if file_stamp(path) != stamp:  # the file was replaced during reading: its stamp is not that of these voxels
            return volume, voxel_checksum(volume.array)
        return volume, self.identities.checksum(path, volume.array, stamp)

    def _only_here(self, path: Path) -> threading.Lock:
        with self._lock:
            return self._locks[path]


def _not_kept() -> tuple[torch.Tensor, np.ndarray]:
    raise _NotKeptError


def _stored(volume: Volume) -> tuple[torch.Tensor, np.ndarray]:
    """Return the voxels (Z, Y, X), in the order of the file, and the affine of the image."""
    voxels = np.ascontiguousarray(volume.array.T)
    return torch.from_numpy(as_int16_if_exact(voxels)), volume.geometry.affine_ras
