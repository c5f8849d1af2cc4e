"""Simulate the clicks of an annotator from the true mask: extreme points and corrections."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

MIN_ERROR_VOXELS = 8
"""Minimum size of an error for a corrective click."""


def simulated_extreme_points(
    mask: np.ndarray, rng: np.random.Generator | None = None, error_voxels: float | np.ndarray = 0.0
) -> np.ndarray:
    """Simulate six clicks on the largest component of a mask.

    Args:
        mask: (X, Y, Z) bool.
        rng: chooses among the voxels of an outermost slice; None takes the first.
        error_voxels: standard deviation of the click error, a scalar or (3,) along each axis; needs `rng`.

    Returns:
        (6, 3) int voxel indices inside the image: low and high end of i, of j, of k.

    Raises:
        ValueError: the mask is empty, or an error is given without `rng`.
    """
    voxels = np.argwhere(largest_component(mask))
    clicks = []
    for axis in range(3):
        for outermost in (voxels[:, axis].min(), voxels[:, axis].max()):
            face = voxels[voxels[:, axis] == outermost]
            clicks.append(face[0 if rng is None else rng.integers(len(face))])
    clicks_voxel = np.array(clicks)
    if np.any(np.greater(error_voxels, 0)):
        if rng is None:
            raise ValueError(f"error_voxels is {error_voxels}, but rng is None; give a generator to draw from")
        clicks_voxel = np.rint(clicks_voxel + rng.normal(0, error_voxels, clicks_voxel.shape)).astype(np.int64)
    return np.clip(clicks_voxel, 0, np.array(mask.shape) - 1)


def corrective_click(
    mask: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float], clicked_voxel: np.ndarray
) -> np.ndarray | None:
    """Simulate a click in the middle of the largest error of a mask: its deepest voxel.

    An error is a 6-connected component of the missed or of the added voxels.

    Args:
        mask, truth: (X, Y, Z) bool.
        spacing_mm: voxel size along each axis.
        clicked_voxel: (N, 3) int, voxels that are clicked already.

    Returns:
        (3,) int, a foreground click if it is in `truth` and else a background click; None if no error has 8 voxels.
    """
    errors = [largest_component(wrong) for wrong in (truth & ~mask, mask & ~truth) if wrong.any()]
    largest = max(errors, key=np.count_nonzero, default=None)
    if largest is None or np.count_nonzero(largest) < MIN_ERROR_VOXELS:
        return None
    depth_mm = ndimage.distance_transform_edt(np.pad(largest, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    depth_mm[tuple(np.asarray(clicked_voxel).T)] = 0
    click = np.unravel_index(depth_mm.argmax(), depth_mm.shape)
    return np.array(click) if largest[click] else None


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the largest 6-connected component of a mask (X, Y, Z) bool.

    Raises:
        ValueError: the mask is empty.
    """
    components, count = ndimage.label(mask)
    if count == 0:
        raise ValueError("the mask is empty; expected a structure of at least one voxel")
    return components == np.bincount(components[components > 0]).argmax()
