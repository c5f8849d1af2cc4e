"""Volumes from files, with the grid they are stored on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torchio as tio
from monai.data.image_reader import ITKReader, NibabelReader
from monai.transforms import LoadImage

from lib.annotations.geometry import ImageGeometry

NIFTI = (".nii", ".nii.gz")


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
    reader = NibabelReader() if path.name.endswith(NIFTI) else ITKReader()
    try:
        image = LoadImage(reader=reader, image_only=True, dtype=np.float32)(path)
    except FileNotFoundError as error:
        raise VolumeError(f"The image {path.name} is not there any more; restore it or choose another.") from error
    except Exception as error:  # the readers raise whatever their formats raise
        raise VolumeError(f"The image {path.name} cannot be read ({_first_sentence(error)}).") from error
    array = image.numpy()
    if array.ndim != 3 or 1 in array.shape:
        shape = " x ".join(map(str, array.shape))
        raise VolumeError(f"The image {path.name} has the size {shape}; expected a 3D volume of one channel.")
    if not np.isfinite(array).all():
        raise VolumeError(f"The image {path.name} holds values that are not finite; expected intensities only.")
    i, j, k = array.shape
    return Volume(array, ImageGeometry((i, j, k), np.asarray(image.affine, dtype=np.float64)))


def read_geometry(path: Path | str) -> ImageGeometry:
    """The grid of an image, from its header alone. Raises: VolumeError: as `load_volume`."""
    path = Path(path)
    try:
        if path.name.endswith(NIFTI):
            header = nib.load(path)
            shape, affine_ras = header.shape, header.affine
        else:
            image = tio.ScalarImage(path)
            shape, affine_ras = image.spatial_shape, image.affine
    except Exception as error:
        raise VolumeError(f"The image {path.name} cannot be read ({_first_sentence(error)}).") from error
    if len(shape) != 3 or 1 in shape:
        raise VolumeError(f"The image {path.name} has the size {' x '.join(map(str, shape))}; expected a 3D volume.")
    i, j, k = shape
    return ImageGeometry((i, j, k), np.asarray(affine_ras, dtype=np.float64))


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
