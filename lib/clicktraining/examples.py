"""Represent a structure with its mask and its surroundings in a scan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MIN_VOXELS, MIN_EXTENT = 80, 3
"""Minimum voxels of a structure, and minimum extent in voxels along each axis."""

SURROUNDINGS, MIN_SURROUNDINGS = 0.3, 4
"""Margin of the scan around a structure: a share of its extent, and a minimum in voxels."""


class Example(NamedTuple):
    """Attributes:
    image: (X, Y, Z) float32.
    mask: (X, Y, Z) bool, one component.
    spacing_mm: voxel size along each axis.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing_mm: tuple[float, float, float]


def large_enough(mask: np.ndarray) -> bool:
    """Can six clicks be placed on a mask (X, Y, Z) bool, and something be learnt?"""
    if np.count_nonzero(mask) < MIN_VOXELS:
        return False
    return bool(np.ptp(np.argwhere(mask), axis=0).min() + 1 >= MIN_EXTENT)


def margins(extent: np.ndarray) -> np.ndarray:
    """(3,) int voxels of surroundings for a structure of an extent (3,) in voxels."""
    return np.maximum(np.ceil(SURROUNDINGS * extent), MIN_SURROUNDINGS).astype(int)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """(3, 3) orthogonal; half of them mirror."""
    rotation: np.ndarray = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return rotation
