"""Masks of several structures in one label map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial import KDTree


def merge_masks(
    masks: Mapping[int, np.ndarray], clicks_voxel: Mapping[int, np.ndarray], spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    """One label map from a mask of each structure; a voxel that two claim goes to the one with the nearer click.

    Where both clicks are equally far, the structure that comes first in `masks` keeps the voxel.

    Args:
        masks: for each label index, 1 to 255, (X, Y, Z) bool; all of one shape.
        clicks_voxel: for each label index, its foreground clicks (N, 3), N >= 1.
        spacing_mm: voxel size along each axis.

    Returns:
        (X, Y, Z) uint8, 0 where no structure is.

    Raises:
        ValueError: no masks, or masks of different shapes.
    """
    shapes = {mask.shape for mask in masks.values()}
    if len(shapes) != 1:
        raise ValueError(f"masks of the shapes {sorted(shapes)}; expected at least one mask, all of one shape")
    merged = np.zeros(shapes.pop(), dtype=np.uint8)
    claims = np.zeros(merged.shape, dtype=np.uint8)
    for index, mask in masks.items():
        merged[mask] = index
        claims += mask
    contested = np.argwhere(claims > 1)
    if len(contested):
        merged[tuple(contested.T)] = _nearest_claim(contested, masks, clicks_voxel, np.asarray(spacing_mm))
    return merged


def _nearest_claim(
    voxels: np.ndarray, masks: Mapping[int, np.ndarray], clicks_voxel: Mapping[int, np.ndarray], spacing_mm: np.ndarray
) -> np.ndarray:
    """For each voxel (n, 3) the label index, of those that claim it, with the nearest click."""
    distances_mm = []
    for index, mask in masks.items():
        distance_mm, _ = KDTree(clicks_voxel[index] * spacing_mm).query(voxels * spacing_mm)
        distances_mm.append(np.where(mask[tuple(voxels.T)], distance_mm, np.inf))
    return np.array(list(masks))[np.argmin(distances_mm, axis=0)]
