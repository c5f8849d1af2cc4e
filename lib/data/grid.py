"""From the grid of a scan to the grid on which the network works, and back."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
import torch
import torchio as tio

from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError, check_size


def to_scalar_image(array: np.ndarray, geometry: ImageGeometry) -> tio.ScalarImage:
    """A volume (X, Y, Z) as a TorchIO image (1, X, Y, Z) that knows its place."""
    return tio.ScalarImage(tensor=torch.from_numpy(np.ascontiguousarray(array))[None], affine=geometry.affine_ras)


class ZScore(tio.ZNormalization):
    """Mean 0 and deviation 1 over all voxels; 0 everywhere in an image without contrast, which TorchIO refuses."""

    @staticmethod
    def znorm(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        values = tensor.double()  # squares of large values overflow in float32
        deviation, mean = (statistic.item() for statistic in torch.std_mean(values, correction=0))
        # What rounding leaves of a constant is no contrast.
        if not deviation > torch.finfo(torch.float32).eps * abs(mean):
            return torch.zeros_like(tensor, dtype=torch.float32)
        return values.sub_(mean).div_(deviation).float()


def network_grid(spacing_mm: tuple[float, float, float]) -> tio.Transform:
    """Axes turned towards right, anterior, superior; voxels of `spacing_mm`; intensities of mean 0 and deviation 1.

    Scans of one protocol arrive in different orientations and spacings; a network that sees them all on one
    grid has to learn one anatomy. World coordinates (mm) of a point stay what they are.
    """
    return tio.Compose([tio.ToCanonical(), tio.Resample(spacing_mm), ZScore()])


def check_grid_size(geometry: ImageGeometry, spacing_mm: tuple[float, float, float], bytes_per_voxel: float) -> None:
    """Call it before `network_grid` is applied, which takes memory for whatever a header says.

    Args:
        bytes_per_voxel: memory that the work on the network's grid takes at its peak.

    Raises:
        VolumeError: the scan is larger on the network's grid than the limit, or than what the free memory allows, or
            it is smaller than a voxel of that grid.
    """
    shape = grid_shape(geometry, spacing_mm)
    own_mm, network_mm = (" x ".join(f"{length:g}" for length in mm) for mm in (geometry.spacing_mm, spacing_mm))
    subject = f"The scan, of {own_mm} mm, on the network's grid of {network_mm} mm"
    if 0 in shape:
        raise VolumeError(f"{subject} is smaller than a voxel; correct the spacing in its header.")
    check_size(shape, subject, bytes_per_voxel)


def grid_shape(geometry: ImageGeometry, spacing_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    """Voxels of a scan on the network's grid, along right, anterior and superior."""
    toward_ras = nib.io_orientation(geometry.affine_ras)[:, 0].astype(int)
    shape = np.array(geometry.shape)[np.argsort(toward_ras)]
    scale = np.array(geometry.canonical_spacing_mm) / spacing_mm
    right, anterior, superior = (math.floor(length) for length in shape * scale)
    return right, anterior, superior


def onto_grid(probability: torch.Tensor, affine: np.ndarray, geometry: ImageGeometry) -> np.ndarray:
    """Probabilities (C, X, Y, Z) on a grid with `affine`, resampled linearly onto the grid of a scan.

    Returns:
        (C, X', Y', Z') float32, in the scan's own voxel order.
    """
    channels = [
        _resampled(tio.ScalarImage(tensor=channel[None].float().cpu(), affine=affine), geometry)
        for channel in probability
    ]
    return np.stack(channels)


def _resampled(image: tio.ScalarImage, geometry: ImageGeometry) -> np.ndarray:
    target = (geometry.shape, geometry.affine_ras)
    # The outermost voxels of a scan may lie beyond the centres of the grid's, where nothing is to be interpolated.
    return tio.Resample(target)(tio.Pad(1, padding_mode="edge")(image)).data[0].numpy()


def points_on_grid(points_ras_mm: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """World coordinates (..., 3) in RAS mm to the nearest voxel indices (..., 3) int of a grid."""
    inverse = np.linalg.inv(affine)
    return np.rint(np.asarray(points_ras_mm) @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
