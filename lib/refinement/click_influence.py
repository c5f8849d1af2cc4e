"""What a corrective click says of the voxels around it."""

from __future__ import annotations

import numpy as np


def click_influence(
    values: np.ndarray,
    mask: np.ndarray,
    clicks_voxel: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    reach: float,
    tolerance: float,
) -> np.ndarray:
    """How far each voxel is of the same kind as a click that stands on the wrong side of a mask.

    An annotator clicks in the middle of what is wrong, so the click's distance to the mask's border tells how
    large that is. The influence is a Gaussian of the distance to the click, times a Gaussian of the difference
    in intensity, as in a bilateral filter; of several clicks the largest counts.

    Args:
        values: (X, Y, Z) intensities.
        mask: (X, Y, Z) bool, the mask on whose wrong side the clicks stand.
        clicks_voxel: (N, 3) int inside the volume, all on one side of the mask; N may be 0.
        spacing_mm: voxel size along each axis.
        reach: standard deviation of the distance, as a multiple of the click's distance to the border.
        tolerance: standard deviation of the difference in intensity.

    Returns:
        (X, Y, Z) float32 in [0, 1], 1 at the clicks.
    """
    influence = np.zeros(values.shape, dtype=np.float32)
    if len(clicks_voxel) == 0:
        return influence
    other_side = np.argwhere(mask != mask[tuple(clicks_voxel[0])])
    for click in clicks_voxel:
        squared_mm = (((other_side - click) * np.asarray(spacing_mm, dtype=float)) ** 2).sum(axis=1)
        sigma_mm = reach * np.sqrt(np.min(squared_mm, initial=np.inf))
        if np.isfinite(sigma_mm):
            influence = np.maximum(influence, _kernel(values, click, spacing_mm, sigma_mm, tolerance))
    return influence


def _kernel(
    values: np.ndarray, click: np.ndarray, spacing_mm: tuple[float, float, float], sigma_mm: float, tolerance: float
) -> np.ndarray:
    axes = [((np.arange(n) - c) * s / sigma_mm) ** 2 for n, c, s in zip(values.shape, click, spacing_mm, strict=True)]
    distance = np.add.outer(np.add.outer(axes[0], axes[1]), axes[2]).astype(np.float32)
    difference = (values - values[tuple(click)]) / tolerance
    return np.exp(-0.5 * (distance + difference**2))
