"""Compute how corrective clicks change the log-odds of the voxels around them."""

from __future__ import annotations

import numpy as np

NUGGET = 0.05
"""Noise variance of a click relative to the variance of the shift; needed because neighbouring clicks may disagree."""


def click_influence(
    values: np.ndarray,
    mask: np.ndarray,
    clicks_voxel: np.ndarray,
    opposite_voxel: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    reach: float,
    tolerance: float,
) -> np.ndarray:
    """Compute how much each voxel adopts the label of a click on the wrong side of a mask.

    An annotator clicks in the middle of an error, so the click's distance to the mask's border estimates the size of
    the error, and an opposite click lies beyond it. The influence is a Gaussian of the distance to the click, times a
    Gaussian of the difference in intensity, as in a bilateral filter. Several clicks combine by their maximum.

    Args:
        values: (X, Y, Z) intensities.
        mask: (X, Y, Z) bool; the clicks are on its wrong side.
        clicks_voxel: (N, 3) int inside the volume, all on one side of the mask; N may be 0.
        opposite_voxel: (M, 3) int, all clicks of the opposite kind; M may be 0.
        spacing_mm: voxel size along each axis.
        reach: standard deviation of the distance, as a multiple of the click's distance to the border, or of half the
            distance to the nearest opposite click if that is smaller.
        tolerance: standard deviation of the difference in intensity.

    Returns:
        (X, Y, Z) float32 in [0, 1], 1 at the clicks.
    """
    influence = np.zeros(values.shape, dtype=np.float32)
    if len(clicks_voxel) == 0:
        return influence
    other_side = np.argwhere(mask != mask[tuple(clicks_voxel[0])])
    for click in clicks_voxel:
        to_border, to_opposite = (_nearest_mm(click, of, spacing_mm) for of in (other_side, opposite_voxel))
        sigma_mm = reach * min(to_border, to_opposite / 2)
        if 0 < sigma_mm < np.inf:  # 0: a foreground and a background click in one coarse voxel
            influence = np.maximum(influence, _kernel(values, click, spacing_mm, sigma_mm, tolerance))
    return influence


def _nearest_mm(click: np.ndarray, voxels: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Return the distance from a click (3,) to the nearest of some voxels (N, 3); infinite if N is 0."""
    squared_mm = (((voxels - click) * np.asarray(spacing_mm, dtype=float)) ** 2).sum(axis=1)
    return float(np.sqrt(np.min(squared_mm, initial=np.inf)))


def click_shift(
    shape: tuple[int, ...], clicks_voxel: np.ndarray, shifts: np.ndarray, reach_voxels: np.ndarray
) -> np.ndarray:
    """Compute a smooth field with about the given values at some clicks.

    A mask that is wrong at a click is often wrong in the same way nearby, also at other intensities; a click that
    agrees with the mask confirms it there. The field is the posterior mean of a Gaussian process with these values.

    Args:
        shape: (3,) of the volume.
        clicks_voxel: (N, 3) inside it; N may be 0.
        shifts: (N,) values at the clicks.
        reach_voxels: (3,) standard deviation of the kernel along each axis, more than 0.

    Returns:
        (X, Y, Z) float32.
    """
    squared = (((clicks_voxel[:, None] - clicks_voxel[None]) / reach_voxels) ** 2).sum(axis=-1)
    weights = np.linalg.solve(np.exp(-0.5 * squared) + NUGGET * np.eye(len(clicks_voxel)), shifts)
    x, y, z = (
        np.exp(-0.5 * ((np.arange(n) - clicks_voxel[:, axis, None]) / reach_voxels[axis]) ** 2).astype(np.float32)
        for axis, n in enumerate(shape)
    )
    return np.einsum("ni,nj,nk->ijk", weights.astype(np.float32)[:, None] * x, y, z, optimize=True)


def _kernel(
    values: np.ndarray, click: np.ndarray, spacing_mm: tuple[float, float, float], sigma_mm: float, tolerance: float
) -> np.ndarray:
    axes = [((np.arange(n) - c) * s / sigma_mm) ** 2 for n, c, s in zip(values.shape, click, spacing_mm, strict=True)]
    distance = np.add.outer(np.add.outer(axes[0], axes[1]), axes[2]).astype(np.float32)
    difference = (values - values[tuple(click)]) / tolerance
    return np.exp(-0.5 * (distance + difference**2))
