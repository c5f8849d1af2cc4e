"""Represent a structure with its mask and its surroundings in a scan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MIN_VOXELS, MIN_EXTENT = 80, 3
"""Minimum voxels of a structure, and minimum extent in voxels along each axis."""

SURROUNDINGS, MIN_SURROUNDINGS = 0.3, 4
"""Margin of the scan around a structure: a share of its extent, and a minimum in voxels."""


class Example(NamedTuple):
    """Structure with its surroundings.

    Attributes:
        image: (X, Y, Z) float32.
        mask: (X, Y, Z) bool, one component.
        spacing_mm: voxel size along each axis.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing_mm: tuple[float, float, float]


def large_enough(mask: np.ndarray) -> bool:
    """Tell whether a mask (X, Y, Z) bool is large enough for six clicks and for training."""
    if np.count_nonzero(mask) < MIN_VOXELS:
        return False
    return bool(np.ptp(np.argwhere(mask), axis=0).min() + 1 >= MIN_EXTENT)


def margins(extent: np.ndarray) -> np.ndarray:
    """Return the margins (3,) int in voxels around a structure of an extent (3,) in voxels."""
    return np.maximum(np.ceil(SURROUNDINGS * extent), MIN_SURROUNDINGS).astype(int)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Draw an orthogonal matrix (3, 3); half of them mirror."""
    rotation: np.ndarray = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return rotation
