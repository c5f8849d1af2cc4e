"""Compiled splatting and slicing of a bilateral grid on the CPU, for `lib.losses.interpolation`.

Everything that gets compiled is in this file: numba looks at the date of no other before it takes code from its
cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

CompiledAxes = tuple[tuple[np.ndarray, np.ndarray], ...]


def cubic_weights(offset: Any) -> Any:
    """Cubic B-spline weights at the bins -1, 0, 1, 2, for values `offset` in [0, 1] beyond bin 0."""
    rest = 1 - offset
    return (
        rest**3 / 6,
        2 / 3 - offset**2 + offset**3 / 2,
        2 / 3 - rest**2 + rest**3 / 2,
        offset**3 / 6,
    )


_compiled_weights = njit(inline="always")(cubic_weights)


@njit(nogil=True, cache=True)
def _reached_bins(
    reached: np.ndarray, own: np.ndarray, node_z: np.ndarray, bins: np.ndarray, low: int, high: int, first_bin: int
) -> bool:
    """Whether a column has voxels in [low, high); `reached` (Gz, 2): the grid's bins that they reach at each node.

    These are few, which makes up for a grid whose columns are mostly empty. `own` (Gz, 2) is working space: the
    bins of the voxels nearest to each node.
    """
    own[:, 0] = np.iinfo(np.int64).max
    own[:, 1] = 0
    for z in range(len(bins)):
        if low <= bins[z] < high:
            own[node_z[z], 0] = min(own[node_z[z], 0], bins[z] - first_bin - 1)
            own[node_z[z], 1] = max(own[node_z[z], 1], bins[z] - first_bin + 3)
    last = len(own) - 1
    for node in range(len(own)):
        before, after = max(node - 1, 0), min(node + 1, last)
        reached[node, 0] = min(own[before, 0], own[node, 0], own[after, 0])
        reached[node, 1] = max(own[before, 1], own[node, 1], own[after, 1])
    return bool(reached[:, 1].any())


@njit(nogil=True, cache=True)
def _add_scaled(target: np.ndarray, source: np.ndarray, weight: float, reached: np.ndarray) -> None:
    """target += weight * source on the bins `reached` of two columns (Gz, C, W)."""
    for k in range(source.shape[0]):
        for c in range(source.shape[1]):
            for b in range(reached[k, 0], reached[k, 1]):
                target[k, c, b] += weight * source[k, c, b]


@njit(nogil=True, cache=True)
def _clear(column: np.ndarray, reached: np.ndarray) -> None:
    for k in range(column.shape[0]):
        column[k, :, reached[k, 0] : reached[k, 1]] = 0


@njit(nogil=True, cache=True)
def splat_planes(
    first_x: int,
    last_x: int,
    volumes: np.ndarray,
    grid: np.ndarray,
    axes: CompiledAxes,
    bins: np.ndarray,
    offset: np.ndarray,
    first_bin: int,
    low: int,
    high: int,
) -> None:
    """Add the voxels of the planes [first_x, last_x) whose bin is in [low, high): `Interpolation.splat`."""
    (node_x, weight_x), (node_y, weight_y), (node_z, weight_z) = axes
    column = np.empty(grid.shape[2:], grid.dtype)
    reached, own = np.empty((2, grid.shape[2], 2), np.int64)
    real = grid.dtype.type
    for x in range(first_x, last_x):
        for y in range(len(node_y)):
            if not _reached_bins(reached, own, node_z, bins[x, y], low, high, first_bin):
                continue
            _clear(column, reached)
            for z in range(len(node_z)):
                if not low <= bins[x, y, z] < high:
                    continue
                b = bins[x, y, z] - first_bin
                w0, w1, w2, w3 = _compiled_weights(offset[x, y, z])
                # Literals have made them float64.
                w0, w1, w2, w3 = real(w0), real(w1), real(w2), real(w3)
                for k in range(3):
                    for c in range(len(volumes)):
                        line = column[node_z[z] + k - 1, c, b - 1 : b + 3]
                        value = weight_z[z, k] * volumes[c, x, y, z]
                        line[0] += w0 * value
                        line[1] += w1 * value
                        line[2] += w2 * value
                        line[3] += w3 * value
            for i in range(3):
                for j in range(3):
                    target = grid[node_x[x] + i - 1, node_y[y] + j - 1]
                    _add_scaled(target, column, weight_x[x, i] * weight_y[y, j], reached)


@njit(nogil=True, cache=True)
def slice_planes(
    first_x: int,
    last_x: int,
    volumes: np.ndarray,
    grid: np.ndarray,
    axes: CompiledAxes,
    bins: np.ndarray,
    offset: np.ndarray,
    first_bin: int,
    low: int,
    high: int,
) -> None:
    """Read the voxels of the planes [first_x, last_x) whose bin is in [low, high): `Interpolation.slice`."""
    (node_x, weight_x), (node_y, weight_y), (node_z, weight_z) = axes
    column = np.empty(grid.shape[2:], grid.dtype)
    reached, own = np.empty((2, grid.shape[2], 2), np.int64)
    real = grid.dtype.type
    for x in range(first_x, last_x):
        for y in range(len(node_y)):
            if not _reached_bins(reached, own, node_z, bins[x, y], low, high, first_bin):
                continue
            _clear(column, reached)
            for i in range(3):
                for j in range(3):
                    source = grid[node_x[x] + i - 1, node_y[y] + j - 1]
                    _add_scaled(column, source, weight_x[x, i] * weight_y[y, j], reached)
            for z in range(len(node_z)):
                if not low <= bins[x, y, z] < high:
                    continue
                b = bins[x, y, z] - first_bin
                w0, w1, w2, w3 = _compiled_weights(offset[x, y, z])
                # Literals have made them float64.
                w0, w1, w2, w3 = real(w0), real(w1), real(w2), real(w3)
                for c in range(len(volumes)):
                    value = volumes.dtype.type(0)
                    for k in range(3):
                        line = column[node_z[z] + k - 1, c, b - 1 : b + 3]
                        value += weight_z[z, k] * (w0 * line[0] + w1 * line[1] + w2 * line[2] + w3 * line[3])
                    volumes[c, x, y, z] = value
