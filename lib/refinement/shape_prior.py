"""A shape prior made of the six extreme points alone."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull


def extreme_point_gauge(extremes: np.ndarray, shape: tuple[int, ...], *, shrinkage: float) -> np.ndarray:
    """Where each voxel lies between the middle of a structure (0) and its surface (1) and beyond (> 1).

    The convex hull of the six points is the least that a convex structure with these extreme points can be,
    their tight box the most. The prior's surface lies between: the gauge (Minkowski functional) of the one
    times the gauge of the other, to the power of one half. It touches all six faces where they were clicked,
    so it is as lopsided or oblique as the clicks are.

    Args:
        extremes: (3, 2, 3), [axis, low / high end, ijk] in voxels of the grid; may be fractional.
        shape: (X, Y, Z) of the grid.
        shrinkage: in [0, 1), by which share each click is moved along its own face towards the middle of the
            face, because structures bulge around a click and clicks have an error.

    Returns:
        (X, Y, Z) float32, at least 0.
    """
    surface = _surface_points(np.asarray(extremes, dtype=np.float64), shrinkage)
    centre = surface.reshape(6, 3).mean(axis=0)
    grid = [g - c for g, c in zip(np.ogrid[tuple(slice(n) for n in shape)], centre, strict=True)]
    faces = [surface[axis, end, axis] - centre[axis] for axis in range(3) for end in range(2)]
    in_box = np.maximum.reduce(
        np.broadcast_arrays(*[np.maximum(grid[a] / faces[2 * a], grid[a] / faces[2 * a + 1]) for a in range(3)])
    )
    in_hull = np.zeros(shape, dtype=np.float32)
    for normal in _hull_normals(surface.reshape(6, 3) - centre):
        np.maximum(in_hull, sum(n * g for n, g in zip(normal, grid, strict=True)), out=in_hull, casting="same_kind")
    return np.sqrt(in_hull * in_box.astype(np.float32))


def _surface_points(extremes: np.ndarray, shrinkage: float) -> np.ndarray:
    """The extremes on the outer faces of their voxels, so that a structure one voxel thick has a body."""
    low, high = extremes.reshape(6, 3).min(axis=0) - 0.5, extremes.reshape(6, 3).max(axis=0) + 0.5
    middle = (low + high) / 2
    surface = middle + (1 - shrinkage) * (extremes - middle)
    for axis in range(3):
        surface[axis, 0, axis], surface[axis, 1, axis] = low[axis], high[axis]
    return surface


def _hull_normals(points: np.ndarray) -> np.ndarray:
    """(F, 3) normals n of the hull's faces, scaled so that n · x = 1 on the face."""
    # Joggled input ("QJ") makes a hull of any six points, flat ones too.
    equations = ConvexHull(points, qhull_options="QJ").equations
    return equations[:, :3] / np.maximum(-equations[:, 3:], 1e-6)
