"""Splat and slice a bilateral grid on the CPU, compiled, for `lib.losses.interpolation`.

All compiled functions are in this file: numba compiles a file again only when that file itself has changed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lib.jit import compiled

CompiledAxes = tuple[tuple[np.ndarray, np.ndarray], ...]


def cubic_weights(offset: Any) -> Any:
    """Return cubic B-spline weights at the bins -1, 0, 1, 2, for values at `offset` in [0, 1] beyond bin 0."""
    rest = 1 - offset
    return (
        rest**3 / 6,
        2 / 3 - offset**2 + offset**3 / 2,
        2 / 3 - rest**2 + rest**3 / 2,
        offset**3 / 6,
    )


_compiled_weights = njit(inline="always")(cubic_weights)


@compiled
def _widen(reached: np.ndarray, bins: np.ndarray) -> None:
    """Extend bin ranges `reached` (G, 2) at the nodes of an axis by ranges `bins` (G, 2)."""
    for k in range(len(reached)):
        reached[k, 0] = min(reached[k, 0], bins[k, 0])
        reached[k, 1] = max(reached[k, 1], bins[k, 1])


@compiled
def _reached_bins(
    columns: np.ndarray,
    plane: np.ndarray,
    bins: np.ndarray,
    node_y: np.ndarray,
    node_z: np.ndarray,
    chosen: tuple[int, int],
    first_bin: int,
) -> None:
    """Find the bins of the grid, [first, last), that the chosen voxels of an X plane (Y, Z) reach at each node.

    Fills in `columns` (Y, Gz, 2) with the bins of each line of voxels along Z, and `plane` (Gy, Gz, 2) with those of
    all lines. The other bins, most of the grid, are empty and are skipped.
    """
    for reached in (columns, plane):
        reached[..., 0] = np.iinfo(np.int64).max
        reached[..., 1] = 0
    for y in range(len(bins)):
        for z in range(bins.shape[1]):
            b = bins[y, z]
            if chosen[0] <= b < chosen[1]:
                columns[y, node_z[z], 0] = min(columns[y, node_z[z], 0], b - first_bin - 1)
                columns[y, node_z[z], 1] = max(columns[y, node_z[z], 1], b - first_bin + 3)
        own = columns[y].copy()
        _widen(columns[y, 1:], own[:-1])
        _widen(columns[y, :-1], own[1:])
        for j in range(-1, 2):
            _widen(plane[node_y[y] + j], columns[y])


@compiled
def _add_scaled(target: np.ndarray, source: np.ndarray, weight: float, reached: np.ndarray) -> None:
    """Add weight * source to target on the bins `reached` (Gz, 2) of two columns (Gz, C, W)."""
    for k in range(source.shape[0]):
        for c in range(source.shape[1]):
            for b in range(reached[k, 0], reached[k, 1]):
                target[k, c, b] += weight * source[k, c, b]


@compiled
def _clear(column: np.ndarray, reached: np.ndarray) -> None:
    for k in range(column.shape[0]):
        column[k, :, reached[k, 0] : reached[k, 1]] = 0


@compiled
def splat_planes(
    first_x: int,
    last_x: int,
    volumes: np.ndarray,
    grid: np.ndarray,
    axes: CompiledAxes,
    bins: np.ndarray,
    offset: np.ndarray,
    first_bin: int,
    chosen: tuple[int, int],
) -> None:
    """Add the voxels of the planes [first_x, last_x) whose bin is in the half-open range `chosen` to the grid."""
    (node_x, weight_x), (node_y, weight_y), (node_z, weight_z) = axes
    plane, column = np.empty(grid.shape[1:], grid.dtype), np.empty(grid.shape[2:], grid.dtype)
    reached = np.empty((len(node_y), grid.shape[2], 2), np.int64)
    plane_reached = np.empty((grid.shape[1], grid.shape[2], 2), np.int64)
    for x in range(first_x, last_x):
        _reached_bins(reached, plane_reached, bins[x], node_y, node_z, chosen, first_bin)
        for j in range(len(plane)):
            _clear(plane[j], plane_reached[j])
        for y in range(len(node_y)):
            _clear(column, reached[y])
            _splat_line(volumes[:, x, y], column, node_z, weight_z, bins[x, y], offset[x, y], first_bin, chosen)
            for j in range(3):
                _add_scaled(plane[node_y[y] + j - 1], column, weight_y[y, j], reached[y])
        for i in range(3):
            for j in range(len(plane)):
                _add_scaled(grid[node_x[x] + i - 1, j], plane[j], weight_x[x, i], plane_reached[j])


@compiled
def _splat_line(
    volumes: np.ndarray,
    column: np.ndarray,
    node_z: np.ndarray,
    weight_z: np.ndarray,
    bins: np.ndarray,
    offset: np.ndarray,
    first_bin: int,
    chosen: tuple[int, int],
) -> None:
    """Add the chosen voxels of a line along Z, volumes (C, Z), to a column (Gz, C, W)."""
    real = column.dtype.type
    for z in range(len(bins)):
        if not chosen[0] <= bins[z] < chosen[1]:
            continue
        b = bins[z] - first_bin
        w0, w1, w2, w3 = _compiled_weights(offset[z])
        # The literals in the weights promote them to float64.
        w0, w1, w2, w3 = real(w0), real(w1), real(w2), real(w3)
        for k in range(3):
            for c in range(len(volumes)):
                near = column[node_z[z] + k - 1, c, b - 1 : b + 3]
                value = weight_z[z, k] * volumes[c, z]
                near[0] += w0 * value
                near[1] += w1 * value
                near[2] += w2 * value
                near[3] += w3 * value


@compiled
def slice_planes(
    first_x: int,
    last_x: int,
    volumes: np.ndarray,
    grid: np.ndarray,
    axes: CompiledAxes,
    bins: np.ndarray,
    offset: np.ndarray,
    first_bin: int,
    chosen: tuple[int, int],
) -> None:
    """Read the voxels of the planes [first_x, last_x) whose bin is in the half-open range `chosen` from the grid."""
    (node_x, weight_x), (node_y, weight_y), (node_z, weight_z) = axes
    plane, column = np.empty(grid.shape[1:], grid.dtype), np.empty(grid.shape[2:], grid.dtype)
    reached = np.empty((len(node_y), grid.shape[2], 2), np.int64)
    plane_reached = np.empty((grid.shape[1], grid.shape[2], 2), np.int64)
    for x in range(first_x, last_x):
        _reached_bins(reached, plane_reached, bins[x], node_y, node_z, chosen, first_bin)
        for j in range(len(plane)):
            _clear(plane[j], plane_reached[j])
            for i in range(3):
                _add_scaled(plane[j], grid[node_x[x] + i - 1, j], weight_x[x, i], plane_reached[j])
        for y in range(len(node_y)):
            _clear(column, reached[y])
            for j in range(3):
                _add_scaled(column, plane[node_y[y] + j - 1], weight_y[y, j], reached[y])
            _slice_line(volumes[:, x, y], column, node_z, weight_z, bins[x, y], offset[x, y], first_bin, chosen)


@compiled
def _slice_line(
    volumes: np.ndarray,
    column: np.ndarray,
    node_z: np.ndarray,
    weight_z: np.ndarray,
    bins: np.ndarray,
    offset: np.ndarray,
    first_bin: int,
    chosen: tuple[int, int],
) -> None:
    """Read the chosen voxels of a line along Z, volumes (C, Z), from a column (Gz, C, W)."""
    real = column.dtype.type
    for z in range(len(bins)):
        if not chosen[0] <= bins[z] < chosen[1]:
            continue
        b = bins[z] - first_bin
        w0, w1, w2, w3 = _compiled_weights(offset[z])
        # The literals in the weights promote them to float64.
        w0, w1, w2, w3 = real(w0), real(w1), real(w2), real(w3)
        for c in range(len(volumes)):
            value = real(0)
            for k in range(3):
                near = column[node_z[z] + k - 1, c, b - 1 : b + 3]
                value += weight_z[z, k] * (w0 * near[0] + w1 * near[1] + w2 * near[2] + w3 * near[3])
            volumes[c, z] = value
