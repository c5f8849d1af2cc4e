"""Resample scans onto the grid of the network."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
import torch
import torchio as tio
from scipy import ndimage

from lib.geometry.image_geometry import ImageGeometry, Spacing
from lib.geometry.volume import Volume, VolumeError, check_size

CLIPPED_PERCENTILES = (0.5, 99.5)

_PERCENTILE_VOXELS = 1_000_000
# Maximum distance, in voxels, between grids of nearly the same spacing at the far end of an axis.
_SAME_SPACING = 0.05
# Peak memory of resampling; 23 bytes were measured.
_BYTES_PER_VOXEL = 32


def to_scalar_image(array: np.ndarray, geometry: ImageGeometry) -> tio.ScalarImage:
    """Convert a volume (X, Y, Z) to a TorchIO image (1, X, Y, Z) with its affine."""
    return tio.ScalarImage(tensor=torch.from_numpy(np.ascontiguousarray(array))[None], affine=geometry.affine_ras)


def network_image(volume: Volume, spacing_mm: Spacing) -> tuple[torch.Tensor, np.ndarray]:
    """Prepare an image for the network: axes towards right, anterior, superior, voxels of `spacing_mm`, z-scored.

    World coordinates (mm) of a point do not change.

    Returns:
        (X, Y, Z) float16 of mean 0 and deviation 1 within the percentiles `CLIPPED_PERCENTILES`, to which the
        intensities are clipped, and the affine (4, 4) of the grid, voxel to RAS mm.

    Raises:
        VolumeError: the image cannot be resampled.
    """
    image = _on_grid(to_scalar_image(volume.array, volume.geometry), volume.geometry, spacing_mm)
    return z_scored(image.data[0].float()).half(), image.affine


def network_label_map(volume: Volume, spacing_mm: Spacing) -> tuple[torch.Tensor, np.ndarray]:
    """Resample a label map to the grid of `network_image`: (X, Y, Z) uint8, and the affine.

    Raises:
        VolumeError: the label map cannot be resampled.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(volume.array.astype(np.uint8)))[None]
    stored = tio.LabelMap(tensor=tensor, affine=volume.geometry.affine_ras)
    label_map = _on_grid(stored, volume.geometry, spacing_mm)
    return label_map.data[0].to(torch.uint8), label_map.affine


def z_scored(values: torch.Tensor) -> torch.Tensor:
    """Clip values to `CLIPPED_PERCENTILES` and scale them to mean 0 and deviation 1; 0 without contrast.

    Args:
        values: (X, Y, Z) float32, finite.
    """
    low, high = np.percentile(_some(values).numpy(), CLIPPED_PERCENTILES).tolist()
    values = values.clamp(low, high) if high > low else values
    deviation, mean = torch.std_mean(values, correction=0)
    # Rounding errors of a constant are not contrast.
    if not deviation > torch.finfo(torch.float32).eps * abs(mean):
        return torch.zeros_like(values)
    return (values - mean) / deviation


def _some(values: torch.Tensor) -> torch.Tensor:
    """Sample about a million values, whose percentiles are close to those of all."""
    step = max(1, values.numel() // _PERCENTILE_VOXELS)
    # A step with a common divisor with the length of an axis would miss planes.
    while math.gcd(step, values.numel()) > 1:
        step += 1
    return values.flatten()[::step]


def _on_grid(image: tio.Image, geometry: ImageGeometry, spacing_mm: Spacing) -> tio.Image:
    check_grid_size(geometry, spacing_mm, _BYTES_PER_VOXEL)
    try:
        turned: tio.Image = tio.ToCanonical()(image)
        factors = np.divide(spacing_mm, turned.spacing)
        if np.allclose(factors, 1, rtol=0, atol=_SAME_SPACING / max(turned.spatial_shape)):
            return turned
        if isinstance(turned, tio.ScalarImage):
            turned = tio.ScalarImage(tensor=_without_fine_detail(turned.data, factors), affine=turned.affine)
        return tio.Resample(spacing_mm)(turned)
    except Exception as error:  # TorchIO and ITK raise errors of any type
        raise VolumeError(f"It cannot be brought onto the network's grid ({error!r}).") from error


def _without_fine_detail(data: torch.Tensor, factors: np.ndarray) -> torch.Tensor:
    """Smooth (1, X, Y, Z) along axes whose voxels become larger by a factor, against aliasing.

    The variance for a factor k is (k^2 - 1) / (8 ln 2) voxels^2 (Cardoso et al., MICCAI 2015, Eq. 3).
    """
    values = data[0].float().numpy()
    for axis, factor in enumerate(factors):
        if factor > 1:
            sigma = math.sqrt((factor**2 - 1) / (8 * math.log(2)))
            values = ndimage.gaussian_filter1d(values, sigma, axis=axis, mode="nearest")
    return torch.from_numpy(values)[None]


def check_grid_size(geometry: ImageGeometry, spacing_mm: Spacing, bytes_per_voxel: float) -> None:
    """Refuse a scan that is too large, or too small, on the network's grid, before memory is allocated for it.

    Args:
        bytes_per_voxel: peak memory for each voxel of the network's grid.

    Raises:
        VolumeError: the scan on the network's grid exceeds the limit or the free memory, or is smaller than a voxel.
    """
    shape = grid_shape(geometry, spacing_mm)
    own_mm, network_mm = (" x ".join(f"{length:g}" for length in mm) for mm in (geometry.spacing_mm, spacing_mm))
    subject = f"The scan, of {own_mm} mm, on the network's grid of {network_mm} mm"
    if 0 in shape:
        raise VolumeError(f"{subject} is smaller than a voxel; correct the spacing in its header.")
    check_size(shape, subject, bytes_per_voxel)


def grid_shape(geometry: ImageGeometry, spacing_mm: Spacing) -> tuple[int, int, int]:
    """Return the number of voxels of a scan on the network's grid, along right, anterior and superior."""
    toward_ras = nib.io_orientation(geometry.affine_ras)[:, 0].astype(int)
    shape = np.array(geometry.shape)[np.argsort(toward_ras)]
    scale = np.array(geometry.canonical_spacing_mm) / spacing_mm
    right, anterior, superior = (math.floor(length) for length in shape * scale)
    return right, anterior, superior


def points_on_grid(points_ras_mm: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Convert world coordinates (..., 3) in RAS mm to the nearest voxel indices (..., 3) int of a grid."""
    inverse = np.linalg.inv(affine)
    return np.rint(np.asarray(points_ras_mm) @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
