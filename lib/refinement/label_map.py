"""Masks of several structures in one label map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial import KDTree


def merge_masks(
    masks: Mapping[int, np.ndarray], clicks_voxel: Mapping[int, np.ndarray], spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    """One label map from a mask of each structure; a voxel that two claim goes to the one with the nearer click.

    Args:
        masks: for each label index, (X, Y, Z) bool.
        clicks_voxel: for each label index, its foreground clicks (N, 3).

    Returns:
        (X, Y, Z) uint8, 0 where no structure is.
    """
    shape = next(iter(masks.values())).shape
    merged = np.zeros(shape, dtype=np.uint8)
    nearest_mm = np.full(shape, np.inf)
    for index, mask in masks.items():
        voxels = np.argwhere(mask)
        distance_mm, _ = KDTree(clicks_voxel[index] * np.array(spacing_mm)).query(voxels * np.array(spacing_mm))
        nearer = voxels[distance_mm < nearest_mm[mask]]
        merged[tuple(nearer.T)] = index
        nearest_mm[mask] = np.minimum(nearest_mm[mask], distance_mm)
    return merged
