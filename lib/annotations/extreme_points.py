"""Represent the clicks on a structure, and find the six extreme points among them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment


def _no_points() -> np.ndarray:
    return np.empty((0, 3), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ExtremePoints:
    """Clicks on one structure, in voxel indices (i, j, k) of the image as stored.

    Attributes:
        label: name of the structure.
        extremes_voxel: (3, 2, 3) int; `extremes_voxel[axis, 0]` is the click at the low end of the image
            axis, `extremes_voxel[axis, 1]` the one at its high end.
        foreground_voxel: (N, 3) int, N >= 6; all clicks inside the structure, the six extremes among them.
        background_voxel: (M, 3) int; clicks outside the structure.
    """

    label: str
    extremes_voxel: np.ndarray
    foreground_voxel: np.ndarray
    background_voxel: np.ndarray = field(default_factory=_no_points)

    @classmethod
    def from_clicks(
        cls, label: str, foreground_voxel: np.ndarray, background_voxel: np.ndarray | None = None
    ) -> ExtremePoints:
        """Create from clicks (N, 3) int, N >= 6, in any order, by `assign_extremes`.

        Raises:
            ValueError: fewer than six clicks.
        """
        foreground_voxel = np.asarray(foreground_voxel, dtype=np.int64).reshape(-1, 3)
        background_voxel = _no_points() if background_voxel is None else np.asarray(background_voxel)
        extremes_voxel = foreground_voxel[assign_extremes(foreground_voxel)]
        return cls(label, extremes_voxel, foreground_voxel, background_voxel.astype(np.int64).reshape(-1, 3))


def assign_extremes(clicks_voxel: np.ndarray) -> np.ndarray:
    """Assign a click to the low and to the high end of each axis.

    Two clicks can share the lowest index of an axis, and the click for one end can lie further out on another axis than
    the click for that axis. Each end is assigned a different click, so that the sum of distances to the faces of the
    tight box, in units of its extent, is minimal (linear assignment).

    Args:
        clicks_voxel: (N, 3) int, N >= 6, in any order.

    Returns:
        (3, 2) int: rows of `clicks_voxel` for [axis, low / high end].

    Raises:
        ValueError: fewer than six clicks.
    """
    if len(clicks_voxel) < 6:
        raise ValueError(f"{len(clicks_voxel)} extreme points; expected at least 6, two for each image axis")
    low, high = clicks_voxel.min(axis=0), clicks_voxel.max(axis=0)
    extent = np.maximum(high - low, 1)
    to_low, to_high = (clicks_voxel - low) / extent, (high - clicks_voxel) / extent
    distance_to_face = np.stack([to_low, to_high], axis=-1).reshape(len(clicks_voxel), 6)
    clicks, faces = linear_sum_assignment(distance_to_face)
    return clicks[np.argsort(faces)].reshape(3, 2)


def mask_extremes(mask: np.ndarray) -> np.ndarray:
    """Compute the extreme points of a mask (X, Y, Z) bool, not empty: the centroid of the outermost slice at each end.

    Returns:
        (3, 2, 3) float voxels, [axis, low / high end].
    """
    extremes = np.empty((3, 2, 3))
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        for side, last in enumerate((filled[0], filled[-1])):
            middle = np.argwhere(np.take(mask, last, axis)).mean(axis=0)
            extremes[axis, side] = np.insert(middle, axis, last)
    return extremes
