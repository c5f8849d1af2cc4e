"""Compute a shape prior from the six extreme points."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull

# Half-axes of the octahedron inside every structure, as a share of the box's: it gives a volume to clicks that lie in
# one plane or on one line.
BODY = 0.5


def extreme_point_gauge(extremes: np.ndarray, shape: tuple[int, ...], *, shrinkage: float) -> np.ndarray:
    """Compute the gauge of each voxel: 0 in the middle of a structure, 1 at its surface, more outside.

    The convex hull of the six points is the smallest convex structure with these extreme points, their tight box the
    largest. The gauge is the geometric mean of the gauges (Minkowski functionals) of the two, so its surface lies
    between them. The surface touches all six faces where they were clicked, so it is as asymmetric or oblique as the
    clicks are.

    Args:
        extremes: (3, 2, 3), [axis, low / high end, ijk] in voxels of the grid.
        shape: (X, Y, Z) of the grid.
        shrinkage: share in [0, 1) of its way to the middle of its face by which each click is moved, because
            structures bulge around a click and clicks have an error.

    Returns:
        (X, Y, Z) float32, at least 0.

    Raises:
        ValueError: extremes of another shape, or a shrinkage out of range.
    """
    hull, box = hull_and_box_gauge(extremes, shape, shrinkage=shrinkage)
    return np.sqrt(hull * box)


def hull_and_box_gauge(
    extremes: np.ndarray, shape: tuple[int, ...], *, shrinkage: float, body: float = BODY
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gauges (X, Y, Z) float32 of hull and box; arguments as in `extreme_point_gauge`.

    Args:
        body: half-axes of the octahedron that the hull includes, as a share of the box's, in (0, 1].
    """
    extremes = np.asarray(extremes, dtype=np.float64)
    if extremes.shape != (3, 2, 3):
        raise ValueError(f"extremes has shape {extremes.shape}; expected (3, 2, 3)")
    if not 0 <= shrinkage < 1:
        raise ValueError(f"shrinkage is {shrinkage}; expected at least 0 and less than 1")
    low, high = extremes.reshape(6, 3).min(axis=0) - 0.5, extremes.reshape(6, 3).max(axis=0) + 0.5
    surface = _surface_points(extremes, low, high, shrinkage)
    centre = surface.mean(axis=0)
    grid = [(np.arange(size) - c).astype(np.float32) for size, c in zip(shape, centre, strict=True)]
    vertices = body * np.diag((high - low) / 2) + (low + high) / 2
    corners = np.concatenate([surface, vertices, low + high - vertices]) - centre
    return _hull_gauge(grid, corners), _box_gauge(grid, low - centre, high - centre)


def _surface_points(extremes: np.ndarray, low: np.ndarray, high: np.ndarray, shrinkage: float) -> np.ndarray:
    """Move the extremes (6, 3) to the outer faces of their voxels, so that a structure one voxel thick has a volume."""
    middle = (low + high) / 2
    surface = middle + (1 - shrinkage) * (extremes - middle)
    for axis in range(3):
        surface[axis, 0, axis], surface[axis, 1, axis] = low[axis], high[axis]
    return surface.reshape(6, 3)


def _box_gauge(grid: list[np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the scale at which the box [low, high] around the origin reaches each voxel."""
    sides = [np.maximum(line / a, line / b) for line, a, b in zip(grid, low, high, strict=True)]
    return np.maximum(np.maximum(sides[0][:, None, None], sides[1][:, None]), sides[2]).astype(np.float32)


def _hull_gauge(grid: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """Return the scale at which the convex hull of points around the origin reaches each voxel."""
    equations = np.unique(ConvexHull(points).equations.round(12), axis=0)
    normals = (equations[:, :3] / -equations[:, 3:]).astype(np.float32)  # n · x = 1 on the face
    gauge = np.zeros([len(line) for line in grid], dtype=np.float32)
    for x, y, z in normals:
        plane = (x * grid[0])[:, None] + y * grid[1]
        np.maximum(gauge, plane[..., None] + z * grid[2], out=gauge)
    return gauge
