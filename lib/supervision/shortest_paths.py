"""Find exact shortest paths between two voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lib.supervision.shortest_path_kernel import search

# Sums of costs up to this stay finite for paths of any length.
MAX_COST = 1e100


def shortest_path(vertex_cost: np.ndarray, source: ArrayLike, target: ArrayLike, step_weight: ArrayLike) -> np.ndarray:
    """Find the cheapest 26-connected path between two voxels (paper, Eq. 2).

    The cost of a path is the sum over its steps of the Euclidean length of the step, with the axes scaled by
    `step_weight`, plus the vertex cost of the voxel that the step leaves: every voxel but the last.
    No path is cheaper, up to the rounding of sums. Among paths of equal cost, the choice is deterministic.

    The search releases the interpreter lock, so that threads run searches in parallel.

    Args:
        vertex_cost: (X, Y, Z) in [0, 1e100].
        source: first voxel of the path, three int.
        target: last voxel of the path, three int.
        step_weight: length of a step of one voxel along each axis, in units of cost, in [0, 1e100]:
            gamma_e times the spacing in mm; zeros for vertex costs alone.

    Returns:
        (n, 3) int64: the voxels from `source` to `target`; one voxel if they are equal.

    Raises:
        ValueError: an argument has a wrong shape or range, or an end lies outside the volume.
    """
    cost = np.asarray(vertex_cost)
    if cost.ndim != 3 or cost.size == 0:
        raise ValueError(f"vertex_cost has shape {cost.shape}; expected (X, Y, Z) with no empty axis")
    lowest, highest = cost.min(), cost.max()
    if not 0 <= lowest <= highest <= MAX_COST:
        raise ValueError(f"vertex_cost ranges over [{lowest}, {highest}]; expected [0, {MAX_COST}]; rescale it")
    weight = np.asarray(step_weight, dtype=np.float64)
    if weight.shape != (3,) or not ((weight >= 0) & (weight <= MAX_COST)).all():
        raise ValueError(f"step_weight is {step_weight!r}; expected three numbers in [0, {MAX_COST}]")
    first, last = _end(source, "source", cost.shape), _end(target, "target", cost.shape)
    if np.array_equal(first, last):
        return first[None]
    padded = np.full(np.add(cost.shape, 2), np.inf)
    np.add(cost, 0.0, out=padded[1:-1, 1:-1, 1:-1])  # makes -0 a 0, whose bits the kernel can sort
    padded[tuple(last + 1)] = 0.0  # no step leaves the last voxel
    strides = np.array(padded.strides) // padded.itemsize
    flat = search(padded.ravel(), int((first + 1) @ strides), int((last + 1) @ strides), strides, weight)
    return np.stack(np.unravel_index(flat, padded.shape), axis=1) - 1


def _end(point_voxel: ArrayLike, name: str, shape: tuple[int, ...]) -> np.ndarray:
    point = np.asarray(point_voxel)
    if point.shape != (3,) or not np.issubdtype(point.dtype, np.integer):
        raise ValueError(f"{name} is {point_voxel!r}; expected a voxel as three whole numbers")
    if (point < 0).any() or (point >= shape).any():
        raise ValueError(f"{name} {point.tolist()} is outside the volume of shape {shape}; move or leave it out")
    return point.astype(np.int64)
