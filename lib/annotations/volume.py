"""Volumes from files, with the grid they are stored on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torchio as tio

from lib.annotations.geometry import ImageGeometry

_TOLERANCE_VOXELS = 0.1
_SCANNER_ANATOMICAL = 1


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
        shape, affine_ras = image.shape, np.asarray(image.affine, dtype=np.float64)
        places_ras = _places_ras(image.header) if _is_nifti(path) else [affine_ras]
    except Exception as error:  # the readers raise whatever their formats raise
        raise VolumeError(f"The image {path.name} cannot be read ({_first_sentence(error)}).") from error
    if not _is_nifti(path) and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 3 or 1 in shape:
        size = " x ".join(map(str, shape))
        raise VolumeError(f"The image {path.name} has the size {size}; expected a 3D volume of one channel.")
    i, j, k = shape
    geometry = ImageGeometry((i, j, k), affine_ras)
    _check_one_place(geometry, places_ras, path.name)
    _check_right_angles(geometry, path.name)
    return image, geometry


def _places_ras(header: nib.Nifti1Header) -> list[np.ndarray]:
    """The affines (4, 4) to RAS mm by which readers of NIfTI place an image: none, one, or two."""
    qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    # With an sform of this code nibabel and ITK both go by it; with another code ITK prefers the qform.
    if int(header["sform_code"]) == _SCANNER_ANATOMICAL:
        return [sform]
    return [form for form in (qform, sform) if form is not None]


def _check_one_place(geometry: ImageGeometry, places_ras: list[np.ndarray], name: str) -> None:
    if not places_ras:
        raise VolumeError(
            f"The image {name} does not tell where it lies in the patient (its qform and sform codes are 0), so left "
            "and right cannot be known; convert it anew from its source."
        )
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(geometry.shape) - 1)
    apart_mm = np.linalg.norm(nib.affines.apply_affine(places_ras[0] - places_ras[-1], corners), axis=1).max()
    if apart_mm > _TOLERANCE_VOXELS * min(geometry.spacing_mm):
        raise VolumeError(
            f"The qform and the sform of the image {name} place it {apart_mm:.1f} mm apart, and viewers differ in "
            "which they go by; set both to the one that holds."
        )


def _check_right_angles(geometry: ImageGeometry, name: str) -> None:
    directions = geometry.affine_ras[:3, :3] / geometry.spacing_mm
    if not np.allclose(directions.T @ directions, np.eye(3), rtol=0, atol=1e-4):
        raise VolumeError(f"The axes of the image {name} are not at right angles; resample it to a grid that is.")


def _is_nifti(path: Path) -> bool:
    return path.name.endswith((".nii", ".nii.gz"))


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
