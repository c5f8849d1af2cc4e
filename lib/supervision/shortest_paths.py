"""Exact shortest paths between two voxels, by a compiled goal-directed search."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lib.supervision.shortest_path_kernel import search


def shortest_path(
    vertex_cost: np.ndarray, source: ArrayLike, target: ArrayLike, step_weight: ArrayLike
) -> np.ndarray:
    """The cheapest 26-connected path between two voxels (paper, Eq. 2).

    A path costs, summed over its steps, the Euclidean length of the step, with the axes scaled by
    `step_weight`, plus the vertex cost of the voxel that the step leaves: every voxel but the last.
    The path is exact. Between paths of one cost the choice is always the same for the same input.

    The interpreter lock is released during the search, so threads run searches side by side.

    Args:
        vertex_cost: (X, Y, Z), finite and not negative.
        source: first voxel of the path, three int.
        target: last voxel of the path, three int.
        step_weight: length of a step of one voxel along each axis, in units of cost, not negative:
            gamma_e times the spacing in mm; zeros for vertex costs alone.

    Returns:
        (n, 3) int64: the voxels from `source` to `target`; one voxel when they are the same.

    Raises:
        ValueError: an argument of another shape or range, or an end outside the volume.
    """
    cost = np.ascontiguousarray(vertex_cost, dtype=np.float64)
    if cost.ndim != 3 or cost.size == 0:
        raise ValueError(f"vertex_cost has shape {cost.shape}; expected (X, Y, Z) with no empty axis")
    lowest, highest = cost.min(), cost.max()
    if not (lowest >= 0 and np.isfinite(highest)):
        raise ValueError(f"vertex_cost ranges over [{lowest}, {highest}]; expected finite costs of at least 0")
    weight = np.ascontiguousarray(step_weight, dtype=np.float64)
    if weight.shape != (3,) or not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError(f"step_weight is {step_weight}; expected three finite numbers of at least 0")
    return search(cost, _end(source, "source", cost.shape), _end(target, "target", cost.shape), weight)


def _end(point_voxel: ArrayLike, name: str, shape: tuple[int, ...]) -> np.ndarray:
    point = np.asarray(point_voxel)
    if point.shape != (3,) or not np.issubdtype(point.dtype, np.integer):
        raise ValueError(f"{name} is {point_voxel}; expected a voxel as three whole numbers")
    if (point < 0).any() or (point >= shape).any():
        raise ValueError(f"{name} {point.tolist()} is outside the volume of shape {shape}; move or leave it out")
    return np.ascontiguousarray(point, dtype=np.int64)
