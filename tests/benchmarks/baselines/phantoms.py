"""An ellipsoid in noise, its clicks, and a network's word that is half wrong."""

from __future__ import annotations

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.geometry.boxes import Box

SHAPE = (30, 28, 20)


def ellipsoid(
    centre: tuple[float, float, float] = (14, 13, 10), radii: tuple[float, float, float] = (7, 6, 4)
) -> np.ndarray:
    """(X, Y, Z) bool; centre and radii in voxels."""
    grid = np.moveaxis(np.indices(SHAPE), 0, -1)
    return np.asarray(np.linalg.norm((grid - np.array(centre)) / radii, axis=-1) <= 1)


def image_of(mask: np.ndarray, noise: float = 0.25) -> np.ndarray:
    """(X, Y, Z), 0 outside and 1 inside, with noise."""
    return mask + np.random.default_rng(0).normal(0, noise, mask.shape)


def clicks_of(mask: np.ndarray) -> ExtremePoints:
    return ExtremePoints.from_clicks("lesion", simulated_extreme_points(mask, np.random.default_rng(1)))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def relaxed_box(shape, points_voxel, margin_voxels):
    """(X, Y, Z) bool: the voxels inside the relaxed tight box of points (N, 3)."""
    inside = np.zeros(shape, dtype=bool)
    inside[Box.around(points_voxel).relaxed(margin_voxels, shape).slices] = True
    return inside
