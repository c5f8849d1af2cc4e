"""From the grid of a scan to the grid on which the network works, and back."""

from __future__ import annotations

import numpy as np
import torch
import torchio as tio

from lib.annotations.geometry import ImageGeometry


def to_scalar_image(array: np.ndarray, geometry: ImageGeometry) -> tio.ScalarImage:
    """A volume (X, Y, Z) as a TorchIO image (1, X, Y, Z) that knows its place."""
    return tio.ScalarImage(tensor=torch.from_numpy(np.ascontiguousarray(array))[None], affine=geometry.affine_ras)


class ZScore(tio.ZNormalization):
    """Mean 0 and deviation 1; 0 everywhere in an image without contrast, which TorchIO refuses."""

    @staticmethod
    def znorm(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        normalised = tio.ZNormalization.znorm(tensor, mask)
        return torch.zeros_like(tensor, dtype=torch.float32) if normalised is None else normalised


def network_grid(spacing_mm: tuple[float, float, float]) -> tio.Transform:
    """Axes turned towards right, anterior, superior; voxels of `spacing_mm`; intensities of mean 0 and deviation 1.

    Scans of one protocol arrive in different orientations and spacings; a network that sees them all on one
    grid has to learn one anatomy. World coordinates (mm) of a point stay what they are.
    """
    return tio.Compose([tio.ToCanonical(), tio.Resample(spacing_mm), ZScore()])


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
