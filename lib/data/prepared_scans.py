"""Cache scans on the network's grid on disk."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib.annotations.atomic_write import write_atomically
from lib.data.bounded_folder import make_room
from lib.data.grid import network_image, network_label_map
from lib.geometry.image_geometry import Spacing
from lib.geometry.volume import Volume, VolumeError, load_volume, read_geometry, shown_name

logger = logging.getLogger(__name__)

VERSION = 1
"""Version of the preparation: files of other versions are not read."""

DEFAULT_LIMIT_BYTES = 20 * 2**30
LABEL_VOXELS = 1000
"""Maximum number of voxels of each label that are stored to place patches."""


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """Volume on the network's grid; voxels are memory-mapped.

    Attributes:
        voxels: (X, Y, Z); float16 intensities of mean 0 and deviation 1, or uint8 label indices.
        affine: (4, 4), voxel of the grid to RAS mm.
        label_voxels: for each label index of a label map, up to `LABEL_VOXELS` of its voxels (N, 3), evenly spaced.
    """

    voxels: torch.Tensor
    affine: np.ndarray
    label_voxels: dict[int, torch.Tensor]


class PreparedScans:
    """Cache of volumes on disk. The key of a file is the checksum of its image, a name, and the grid.

    Processes may share it: files are written atomically, and a volume in use stays readable after its file is deleted.

    Args:
        folder: created if it is missing. Its files may be deleted at any time.
        limit_bytes: maximum size; the least recently used volumes are deleted.
    """

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    def image(self, path: Path, checksum: str, spacing_mm: Spacing) -> PreparedVolume:
        """Return the image of a file.

        Args:
            checksum: checksum of the voxels.

        Raises:
            VolumeError: the image cannot be read or resampled.
        """
        name = f"image {place_of(path)}"
        return self.volume(checksum, name, spacing_mm, lambda: network_image(load_volume(path), spacing_mm))

    def label_map(self, checksum: str, name: str, spacing_mm: Spacing, make: Callable[[], Volume]) -> PreparedVolume:
        """Return a label map of an image.

        Args:
            checksum: checksum of the voxels of the image.
            name: key of the content of the map.
            make: makes the map (X, Y, Z) of label indices on the grid of the image, if it is not in the cache.

        Raises:
            VolumeError: `make` raises it, or the map cannot be resampled.
        """
        return self.volume(checksum, f"map {name}", spacing_mm, lambda: network_label_map(make(), spacing_mm))

    def volume(
        self, checksum: str, name: str, spacing_mm: Spacing, make: Callable[[], tuple[torch.Tensor, np.ndarray]]
    ) -> PreparedVolume:
        """Return the result of `make`, voxels (X, Y, Z) and affine (4, 4), from the cache if it is there."""
        path = self.folder / f"{_name(checksum)}-{_name(f'{VERSION} {name} {spacing_mm}')}.pt"
        try:
            prepared = _load(path)
            with suppress(OSError):  # another process has deleted the file, or it belongs to another user
                os.utime(path)
            return prepared
        except FileNotFoundError:
            pass
        except Exception as error:  # a damaged file raises errors of any kind
            logger.warning("A prepared scan cannot be read and is made again (%s).", type(error).__name__)
        # TorchIO draws a random number in each transform; patches must not depend on the content of the cache.
        with torch.random.fork_rng(devices=[]):
            voxels, affine = make()
        content = _encoded(voxels, affine)
        try:
            make_room(self.folder, ["*.pt"], self.limit_bytes, len(content))
            write_atomically(path, content)
            return _load(path)
        except OSError as error:
            logger.warning("A prepared scan is not kept (%s); it is prepared at each use.", error.strerror)
        except RuntimeError:  # of torch, if another process deletes the file between its two opens
            pass
        return _decoded(torch.load(io.BytesIO(content), weights_only=True))

    def forget(self, checksum: str) -> None:
        """Delete all volumes of an image."""
        for path in self.folder.glob(f"{_name(checksum)}-*.pt"):
            path.unlink(missing_ok=True)


def place_of(path: Path) -> str:
    """Return a key of the affine of an image: images with the same voxels may differ in their position.

    Raises:
        VolumeError: the image does not exist or cannot be read.
    """
    try:
        status = path.stat()
    except OSError:
        raise VolumeError(f"The image {shown_name(path)} is not there; restore it or choose another.") from None
    stamp = status.st_mtime_ns, status.st_ctime_ns
    if path not in _places or _places[path][0] != stamp:
        _places[path] = stamp, _name(repr(read_geometry(path).affine_ras.tolist()))
    return _places[path][1]


_places: dict[Path, tuple[tuple[int, int], str]] = {}
"""Times of the file and key of the affine, by path."""


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _encoded(voxels: torch.Tensor, affine: np.ndarray) -> bytes:
    content = {"voxels": voxels.contiguous(), "affine": torch.from_numpy(affine), "label_voxels": {}}
    if voxels.dtype == torch.uint8:
        content["label_voxels"] = {
            int(index): _some_voxels(voxels == index) for index in voxels.unique().tolist() if index
        }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _some_voxels(mask: torch.Tensor) -> torch.Tensor:
    flat = mask.flatten().nonzero()[:, 0]
    some = flat[torch.linspace(0, len(flat) - 1, min(len(flat), LABEL_VOXELS)).round().long()]
    return torch.stack(torch.unravel_index(some, mask.shape), dim=1).to(torch.int16)


def _load(path: Path) -> PreparedVolume:
    return _decoded(torch.load(path, mmap=True, weights_only=True))


def _decoded(content: dict) -> PreparedVolume:
    return PreparedVolume(content["voxels"], content["affine"].numpy(), content["label_voxels"])
