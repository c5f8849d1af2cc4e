"""What a corrective click says of the voxels around it."""

from __future__ import annotations

import numpy as np


def click_influence(
    values: np.ndarray, clicks_voxel: np.ndarray, reach_voxels: np.ndarray, *, tolerance: float
) -> np.ndarray:
    """How far each voxel is of the same kind as a click: near it, and of its intensity.

    A Gaussian of the distance times a Gaussian of the difference in intensity, as in a bilateral filter; of
    several clicks the largest.

    Args:
        values: (X, Y, Z) intensities.
        clicks_voxel: (N, 3) int inside the volume; N may be 0.
        reach_voxels: (3,) standard deviation of the distance along each axis.
        tolerance: standard deviation of the difference in intensity.

    Returns:
        (X, Y, Z) float32 in [0, 1], 1 at the clicks.
    """
    influence = np.zeros(values.shape, dtype=np.float32)
    for click in clicks_voxel:
        window = tuple(
            slice(max(int(c - 3 * r), 0), int(c + 3 * r) + 2) for c, r in zip(click, reach_voxels, strict=True)
        )
        axes = [np.arange(*s.indices(n)) for s, n in zip(window, values.shape, strict=True)]
        x, y, z = (((a - c) / r) ** 2 for a, c, r in zip(axes, click, reach_voxels, strict=True))
        difference = (values[window] - values[tuple(click)]) / tolerance
        near = np.exp(-0.5 * (x[:, None, None] + y[:, None] + z + difference**2))
        influence[window] = np.maximum(influence[window], near)
    return influence
