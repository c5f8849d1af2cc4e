"""Merge the masks of several structures into one label map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial import KDTree

from lib.geometry.boxes import Box

BoxedMask = tuple[Box, np.ndarray]
"""Box of an image, and a mask (x, y, z) bool in it."""


def merge_masks(
    masks: Mapping[int, BoxedMask],
    clicks_voxel: Mapping[int, np.ndarray],
    spacing_mm: tuple[float, float, float],
    shape: tuple[int, int, int],
) -> np.ndarray:
    """Merge one mask per structure into a label map; overlaps are assigned to the structure with the nearest click.

    Where two clicks are equally far, the structure that comes first in `masks` keeps the voxel.

    Args:
        masks: for each label index, 1 to 255, a box and the mask in it; may be empty.
        clicks_voxel: for each label index, its foreground clicks (N, 3), N >= 1.
        spacing_mm: voxel size along each axis.

    Returns:
        (X, Y, Z) uint8 of the given shape, 0 for background, in Fortran order.
    """
    merged = np.zeros(shape, dtype=np.uint8, order="F")
    overlapping = [np.empty((0, 3), dtype=np.int64)]
    for index, (box, mask) in masks.items():
        part = merged[box.slices]
        overlapping.append(np.argwhere(mask & (part > 0)) + box.start)
        part[mask] = index
    voxels = np.unique(np.concatenate(overlapping), axis=0)
    if len(voxels):
        merged[tuple(voxels.T)] = _label_of_nearest_click(voxels, masks, clicks_voxel, np.asarray(spacing_mm))
    return merged


def _label_of_nearest_click(
    voxels: np.ndarray,
    masks: Mapping[int, BoxedMask],
    clicks_voxel: Mapping[int, np.ndarray],
    spacing_mm: np.ndarray,
) -> np.ndarray:
    """Return, for each voxel (n, 3), the label index with the nearest click among the masks that contain the voxel."""
    distances_mm = []
    for index, (box, mask) in masks.items():
        distance_mm, _ = KDTree(clicks_voxel[index] * spacing_mm).query(voxels * spacing_mm)
        held = ((voxels >= box.start) & (voxels < box.stop)).all(axis=1)
        held[held] = mask[tuple((voxels[held] - box.start).T)]
        distances_mm.append(np.where(held, distance_mm, np.inf))
    return np.array(list(masks))[np.argmin(distances_mm, axis=0)]
