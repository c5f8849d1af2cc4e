"""Compute geodesic distances through a cost volume by raster scans."""

from __future__ import annotations

import itertools

import numpy as np

from lib.jit import compiled

FORWARD = np.array([step for step in itertools.product((-1, 0, 1), repeat=3) if step < (0, 0, 0)])
"""(13, 3) offsets to the neighbours that precede a voxel in a scan from the first voxel to the last."""


def raster_distance(
    cost: np.ndarray, seeds: np.ndarray, spacing_mm: tuple[float, float, float], *, scans: int = 2
) -> np.ndarray:
    """Approximate the cost of the cheapest 26-connected path to the nearest seed, from above.

    A step costs its length in mm times the mean of the costs of both voxels. Each scan goes through the volume once
    forwards and once backwards (Toivanen, 1996; Criminisi et al., ECCV 2008), so paths that turn more often than there
    are scans may be missed. The time depends on the number of voxels only.

    Args:
        cost: (X, Y, Z) more than 0, finite.
        seeds: (X, Y, Z) bool, at least one voxel.
        spacing_mm: voxel size along each axis.
        scans: at least 1.

    Returns:
        (X, Y, Z) float32, 0 at the seeds.

    Raises:
        ValueError: volumes of different shapes, or no seed.
    """
    if cost.ndim != 3 or cost.shape != seeds.shape:
        raise ValueError(f"cost has shape {cost.shape}, seeds {seeds.shape}; expected one (X, Y, Z) for both")
    if not seeds.any():
        raise ValueError("seeds holds no voxel; expected at least one")
    padded = np.full(np.add(cost.shape, 2), np.inf, dtype=np.float32)
    distance = padded.copy()
    inside = (slice(1, -1),) * 3
    padded[inside] = cost
    distance[inside][seeds] = 0
    strides = np.array(padded.strides) // padded.itemsize
    half_lengths = (np.linalg.norm(FORWARD * np.asarray(spacing_mm), axis=1) / 2).astype(np.float32)
    _scan(padded.ravel(), distance.ravel(), FORWARD @ strides, half_lengths, scans)
    return distance[inside]


@compiled
def _scan(cost: np.ndarray, distance: np.ndarray, offsets: np.ndarray, half_lengths: np.ndarray, scans: int) -> None:
    """Lower `distance` (N,) in place; `cost` (N,) is inf on the border of the volume."""
    for scan in range(2 * scans):
        direction = 1 if scan % 2 == 0 else -1
        for n in range(cost.size):
            voxel = n if direction == 1 else cost.size - 1 - n
            if cost[voxel] < np.inf:
                least = distance[voxel]
                for m in range(offsets.size):
                    neighbour = voxel + direction * offsets[m]
                    found = distance[neighbour] + half_lengths[m] * (cost[voxel] + cost[neighbour])
                    if found < least:
                        least = found
                distance[voxel] = least
