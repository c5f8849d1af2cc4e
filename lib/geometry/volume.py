"""Volumes from files, with the grid they are stored on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume_files import StoredVolume, read_header, read_intensities
from lib.geometry.volume_size import too_large

# No scanner measures beyond this; files use such numbers (-3.4e38, 9.97e36, 1e20) where nothing was measured.
LARGEST_INTENSITY = 1e9

_TOLERANCE_VOXELS = 0.1
# Large images are read one after the other: each measures the free memory when the one before it has taken its part.
_LARGE_VOXELS = 50_000_000
_LARGE_READS = threading.Lock()
# float32, and a mask of the voxels where nothing was measured.
_READING_BYTES_PER_VOXEL = 5


class VolumeError(ValueError):
    """An image that is not a readable 3D volume; its text names the file and is for the user."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities (X, Y, Z) float32 in stored voxel order, and where the voxels lie."""

    array: np.ndarray
    geometry: ImageGeometry


def load_volume(path: Path | str, *, sentinels: bool = True) -> Volume:
    """Reads a 3D image: NIfTI (.nii, .nii.gz), or NRRD (.nrrd) with attached data.

    The name tells the format, also where it is a link to a file of another name. Values beyond ±1e9 stand for places
    where nothing was measured, and become the lowest of the others.

    Args:
        sentinels: False for masks, whose values all count.

    Raises:
        VolumeError: the file is missing, cannot be read, is not 3D, is larger than the limit or the free memory, or
            holds values that are not finite.
    """
    path = Path(path)
    stored, geometry = _opened(path)
    name = shown_name(path)
    with _LARGE_READS if stored.voxels > _LARGE_VOXELS else nullcontext():
        check_size(geometry.shape, f"The image {name}", _READING_BYTES_PER_VOXEL)
        try:
            voxels = _measured(path, stored, LARGEST_INTENSITY if sentinels else float("inf"))
        except Exception as error:  # a damaged file fails as its format likes
            raise VolumeError(f"The image {name} cannot be read ({_first_sentence(error)}).") from error
    lowest = np.fmin.reduce(voxels)
    if np.isnan(lowest):
        raise VolumeError(f"The image {name} holds no value within ±{LARGEST_INTENSITY:g}; expected intensities.")
    np.copyto(voxels, lowest, where=np.isnan(voxels))
    return Volume(voxels.reshape(geometry.shape, order="F"), geometry)


def read_geometry(path: Path | str) -> ImageGeometry:
    """The grid of an image, from its header alone. Raises: VolumeError: missing, unreadable, too large, or not 3D."""
    return _opened(Path(path))[1]


def check_size(shape: Sequence[int], subject: str, bytes_per_voxel: float = 0) -> None:
    """Raises: VolumeError: a volume of this shape is larger than the limit, or than what the free memory allows.

    Args:
        subject: what the sentence is about, such as "The image case01.nii.gz".
        bytes_per_voxel: see `too_large`.
    """
    if problem := too_large(shape, bytes_per_voxel):
        raise VolumeError(f"{subject} {problem}")


def shown_name(path: Path) -> str:
    """The name of a file, without its folder, as it can be printed."""
    return "".join(character if character.isprintable() else "?" for character in path.name)


def _opened(path: Path) -> tuple[StoredVolume, ImageGeometry]:
    """The header of an image, and its grid."""
    name = shown_name(path)
    try:
        if not path.exists():
            raise VolumeError(f"The image {name} is not there; restore it or choose another.")
        if not path.is_file():
            raise VolumeError(f"The image {name} is no file; choose a NIfTI or NRRD file.")
        stored = read_header(path)
        file_bytes = path.stat().st_size
    except VolumeError:
        raise
    except Exception as error:  # the readers raise whatever their formats raise
        raise VolumeError(f"The image {name} cannot be read ({_first_sentence(error)}).") from error
    if len(stored.shape) != 3 or min(stored.shape) < 2:
        size = " x ".join(map(str, stored.shape))
        raise VolumeError(f"The image {name} has the size {size}; expected a 3D volume of one channel.")
    check_size(stored.shape, f"The image {name}")
    if not stored.fits_into(file_bytes):
        size = " x ".join(map(str, stored.shape))
        raise VolumeError(f"The image {name} is cut short: {file_bytes} bytes cannot hold {size} voxels. Copy it anew.")
    i, j, k = stored.shape
    _check_one_place(stored.shape, stored.affines_ras, name)
    geometry = ImageGeometry((i, j, k), stored.affines_ras[0])
    _check_right_angles(geometry, name)
    return stored, geometry


def _measured(path: Path, stored: StoredVolume, largest: float) -> np.ndarray:
    """(N,) float32 in stored order; NaN where nothing was measured. Raises: ValueError: a value is not finite."""
    voxels = np.empty(stored.voxels, np.float32)
    first = 0
    for values in read_intensities(path, stored):
        low, high = float(values.min()), float(values.max())
        if not np.isfinite((low, high)).all():
            raise ValueError("it holds values that are not finite; expected intensities only")
        piece = voxels[first : first + len(values)]
        if max(-low, high) > largest:
            unmeasured = (values < -largest) | (values > largest)
            values = np.where(unmeasured, np.nan, values)
        piece[:] = values
        first += len(values)
    return voxels


def _check_one_place(shape: tuple[int, ...], places_ras: list[np.ndarray], name: str) -> None:
    if not places_ras:
        raise VolumeError(
            f"The image {name} does not tell where it lies in the patient (its qform and sform codes are 0), so left "
            "and right cannot be known; convert it anew from its source."
        )
    if not np.isfinite(places_ras).all() or not np.linalg.norm(places_ras[0][:3, :3], axis=0).all():
        raise VolumeError(f"The header of the image {name} places its voxels at no distance; convert it anew.")
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape) - 1)
    apart_mm = np.linalg.norm(nib.affines.apply_affine(places_ras[0] - places_ras[-1], corners), axis=1).max()
    if apart_mm > _TOLERANCE_VOXELS * nib.affines.voxel_sizes(places_ras[0]).min():
        raise VolumeError(
            f"The qform and the sform of the image {name} place it {apart_mm:.1f} mm apart, and viewers differ in "
            "which they go by; set both to the one that holds."
        )


def _check_right_angles(geometry: ImageGeometry, name: str) -> None:
    directions = geometry.affine_ras[:3, :3] / geometry.spacing_mm
    if not np.allclose(directions.T @ directions, np.eye(3), rtol=0, atol=1e-4):
        raise VolumeError(f"The axes of the image {name} are not at right angles; resample it to a grid that is.")


def _first_sentence(error: Exception) -> str:
    """What an error says, without the path that an OSError ends with."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
