"""Make NIfTI images with the same position in every reader."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np


def nifti_image(array: np.ndarray, affine_ras: np.ndarray) -> nib.Nifti1Image:
    """Make an image (X, Y, Z) with its affine (4, 4), voxel to RAS mm, as qform and sform (scanner anatomical)."""
    image = nib.Nifti1Image(array, affine_ras)
    image.set_qform(affine_ras, code=1)
    image.set_sform(affine_ras, code=1)
    image.header.set_xyzt_units("mm")
    return image


def nifti_gz(image: nib.Nifti1Image, level: int = 6) -> bytes:
    """Encode an image as .nii.gz; the same image gives the same bytes, because no time is stored."""
    return gzip.compress(image.to_bytes(), compresslevel=level, mtime=0)
