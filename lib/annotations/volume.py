"""Volumes from files, with the grid they are stored on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torchio as tio

from lib.annotations.geometry import ImageGeometry


class VolumeError(ValueError):
    """An image that is not a readable 3D volume; its text names the file and is for the user."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities (X, Y, Z) float32 in stored voxel order, and where the voxels lie."""

    array: np.ndarray
    geometry: ImageGeometry


def load_volume(path: Path | str) -> Volume:
    """Reads a 3D image: NIfTI, NRRD, or whatever else ITK reads.

    Raises:
        VolumeError: the file is missing, cannot be read, is not 3D, or holds values that are not finite.
    """
    path = Path(path)
    image, geometry = _opened(path)
    try:
        array = np.asarray(image.dataobj, np.float32) if _is_nifti(path) else image.data[0].float().numpy()
    except Exception as error:  # a damaged file fails as its format likes
        raise VolumeError(f"The image {path.name} cannot be read ({_first_sentence(error)}).") from error
    if not np.isfinite(array).all():
        raise VolumeError(f"The image {path.name} holds values that are not finite; expected intensities only.")
    return Volume(array, geometry)


def read_geometry(path: Path | str) -> ImageGeometry:
    """The grid of an image, from its header alone. Raises: VolumeError: missing, unreadable, or not 3D."""
    return _opened(Path(path))[1]


def _opened(path: Path) -> tuple[Any, ImageGeometry]:
    """An image whose voxels are not read yet, and its grid."""
    if not path.exists():
        raise VolumeError(f"The image {path.name} is not there; restore it or choose another.")
    try:
        image: Any = nib.load(path) if _is_nifti(path) else tio.ScalarImage(path)
        shape, affine_ras = image.shape, image.affine
    except Exception as error:  # the readers raise whatever their formats raise
        raise VolumeError(f"The image {path.name} cannot be read ({_first_sentence(error)}).") from error
    if not _is_nifti(path) and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 3 or 1 in shape:
        size = " x ".join(map(str, shape))
        raise VolumeError(f"The image {path.name} has the size {size}; expected a 3D volume of one channel.")
    i, j, k = shape
    return image, ImageGeometry((i, j, k), np.asarray(affine_ras, dtype=np.float64))


def _is_nifti(path: Path) -> bool:
    return path.name.endswith((".nii", ".nii.gz"))


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
