"""Extreme points of a known mask, as an annotator would click them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def simulated_extreme_points(
    mask: np.ndarray, rng: np.random.Generator | None = None, error_voxels: float | np.ndarray = 0.0
) -> np.ndarray:
    """Six clicks on the largest component of a mask.

    Args:
        mask: (X, Y, Z) bool.
        rng: chooses among the voxels that lie equally far out; None takes the first.
        error_voxels: standard deviation of a hand's error, along each axis or (3,) for each its own; needs `rng`.

    Returns:
        (6, 3) int voxel indices inside the image: low and high end of i, of j, of k.

    Raises:
        ValueError: the mask is empty, or an error is asked for without an `rng` to draw it from.
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
        hand = rng.normal(0, error_voxels, clicks_voxel.shape)
        clicks_voxel = np.rint(clicks_voxel + hand).astype(np.int64)
    return np.clip(clicks_voxel, 0, np.array(mask.shape) - 1)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest part of a mask (X, Y, Z) bool whose voxels hang together by their faces.

    Raises:
        ValueError: the mask is empty.
    """
    components, count = ndimage.label(mask)
    if count == 0:
        raise ValueError("the mask is empty; expected a structure of at least one voxel")
    return components == np.bincount(components[components > 0]).argmax()
