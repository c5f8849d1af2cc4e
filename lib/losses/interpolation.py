"""Spreading volumes over a bilateral grid and reading them back: compiled on the CPU, torch on the GPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

CompiledAxes = tuple[tuple[np.ndarray, np.ndarray], ...]

MIN_VOXELS_FOR_THREADS = 2**14


def spline_weights(offset: Any, taps: Any) -> Any:
    """Quadratic B-spline weights of a value's bin and its two neighbours, for offsets in [-0.5, 0.5] bins.

    They are scaled so that two equal values, wherever in their bin, weigh exactly 1 after a blur by `taps`.
    """
    before = 0.5 * (0.5 - offset) ** 2
    centre = 0.75 - offset**2
    after = 0.5 * (0.5 + offset) ** 2
    self_weight = (
        taps[0] * (before**2 + centre**2 + after**2)
        + 2 * taps[1] * centre * (before + after)
        + 2 * taps[2] * before * after
    )
    scale = self_weight**-0.5
    return before * scale, centre * scale, after * scale


class Interpolation:
    """Weights between the voxels of an image and the nodes of a grid (Gx, Gy, Gz, C, W).

    Linear in space, quadratic B-splines in intensity; `splat` and `slice` are each other's transpose.

    Args:
        axes: for X, Y, Z the node before each voxel, int64 (n,), and the way on to the next, in [0, 1] (n,).
        bins: (X, Y, Z) int32, bin nearest to each voxel's intensity.
        offset: (X, Y, Z), intensity's distance from the centre of its bin, in bins.
        taps: the blur that the grid gets along its bins, for the scale of `spline_weights`.
    """

    def __init__(
        self, axes: list[tuple[np.ndarray, np.ndarray]], bins: Tensor, offset: Tensor, taps: np.ndarray
    ) -> None:
        self.axes = axes
        self.bins = bins
        self.offset = offset
        self.taps = taps
        self.compiled = bins.device.type == "cpu"

    def splat(self, volumes: Tensor, grid: Tensor, first_bin: int) -> None:
        """Add volumes (C, X, Y, Z) to a grid whose bins start at `first_bin`.

        Voxels that would reach a bin outside the grid are left out.
        """
        bins = (first_bin + 1, first_bin + grid.shape[-1] - 1)
        if self.compiled:
            self._run_compiled(_splat_planes, volumes, grid, first_bin, bins)
            return
        flat, stride = grid.view(-1), grid.shape[-1]
        chosen = self._voxels_in(bins)
        sources = volumes.flatten(start_dim=1)[:, chosen]
        for index, weight in self._corners(grid, first_bin, chosen):
            for channel, source in enumerate(sources):
                flat.index_add_(0, index + channel * stride, weight * source)

    def slice(self, grid: Tensor, volumes: Tensor, first_bin: int, bins: tuple[int, int]) -> None:
        """Read volumes (C, X, Y, Z) from the grid, at the voxels whose bin is in the half-open range `bins`."""
        if self.compiled:
            self._run_compiled(_slice_planes, volumes, grid, first_bin, bins)
            return
        flat, stride = grid.view(-1), grid.shape[-1]
        chosen = self._voxels_in(bins)
        read = volumes.new_zeros(len(volumes), len(chosen))
        for index, weight in self._corners(grid, first_bin, chosen):
            for channel in range(len(volumes)):
                read[channel].addcmul_(weight, flat[index + channel * stride])
        volumes.flatten(start_dim=1)[:, chosen] = read

    def _voxels_in(self, bins: tuple[int, int]) -> Tensor:
        return ((self.bins >= bins[0]) & (self.bins < bins[1])).flatten().nonzero().flatten()

    def _corners(self, grid: Tensor, first_bin: int, chosen: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each grid value around the chosen voxels: its index in the first channel, and its weight."""
        bins = self.bins.flatten()[chosen] - first_bin
        splines = spline_weights(self.offset.flatten()[chosen], self.taps.tolist())
        axes = [(torch.as_tensor(node).to(grid.device), torch.as_tensor(part).to(grid)) for node, part in self.axes]
        for corner in itertools.product((0, 1), repeat=3):
            nodes = [node + side for (node, _), side in zip(axes, corner, strict=True)]
            parts = [part if side else 1 - part for (_, part), side in zip(axes, corner, strict=True)]
            node = (nodes[0][:, None, None] * grid.shape[1] + nodes[1][:, None]) * grid.shape[2] + nodes[2]
            weight = (parts[0][:, None, None] * parts[1][:, None] * parts[2]).flatten()[chosen]
            index = node.flatten()[chosen] * grid.stride(2) + bins
            for shift, spline in zip((-1, 0, 1), splines, strict=True):
                yield index + shift, weight * spline

    def _run_compiled(
        self, kernel: Callable[..., None], volumes: Tensor, grid: Tensor, first_bin: int, bins: tuple[int, int]
    ) -> None:
        """Run a kernel over the X planes, those between the same two nodes as one task.

        Tasks that share a node plane never run together, so none waits for another and the sums are always in
        the same order.
        """
        planes = np.flatnonzero(np.diff(self.axes[0][0], prepend=-1, append=-1))
        tasks = list(zip(planes, planes[1:], strict=False))
        dtype = volumes.numpy().dtype
        axes = tuple((node, fraction.astype(dtype)) for node, fraction in self.axes)
        taps = self.taps[:3].astype(dtype)
        arguments = (volumes.numpy(), grid.numpy(), axes, self.bins.numpy(), self.offset.numpy(), taps)

        def run(task: tuple[int, int]) -> None:
            kernel(*task, *arguments, first_bin, *bins)

        if self.bins.numel() < MIN_VOXELS_FOR_THREADS:
            run((0, len(self.bins)))
            return
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for parity in (0, 1):
                list(pool.map(run, tasks[parity::2]))


_compiled_weights = njit(inline="always")(spline_weights)


@njit(nogil=True, cache=True)
def _splat_planes(
    first_x: int,
    last_x: int,
    volumes: np.ndarray,
    grid: np.ndarray,
    axes: CompiledAxes,
    bins: np.ndarray,
    offset: np.ndarray,
    taps: np.ndarray,
    first_bin: int,
    low: int,
    high: int,
) -> None:
    (node_x, part_x), (node_y, part_y), (node_z, part_z) = axes
    one = volumes.dtype.type(1)
    for x in range(first_x, last_x):
        for y in range(len(node_y)):
            for z in range(len(node_z)):
                if not low <= bins[x, y, z] < high:
                    continue
                b = bins[x, y, z] - first_bin
                before, centre, after = _compiled_weights(offset[x, y, z], taps)
                for i in range(2):
                    weight_x = part_x[x] if i else one - part_x[x]
                    for j in range(2):
                        weight_xy = weight_x * (part_y[y] if j else one - part_y[y])
                        for k in range(2):
                            weight = weight_xy * (part_z[z] if k else one - part_z[z])
                            for c in range(len(volumes)):
                                line = grid[node_x[x] + i, node_y[y] + j, node_z[z] + k, c]
                                value = weight * volumes[c, x, y, z]
                                line[b - 1] += before * value
                                line[b] += centre * value
                                line[b + 1] += after * value


@njit(nogil=True, cache=True)
def _slice_planes(
    first_x: int,
    last_x: int,
    volumes: np.ndarray,
    grid: np.ndarray,
    axes: CompiledAxes,
    bins: np.ndarray,
    offset: np.ndarray,
    taps: np.ndarray,
    first_bin: int,
    low: int,
    high: int,
) -> None:
    (node_x, part_x), (node_y, part_y), (node_z, part_z) = axes
    one = volumes.dtype.type(1)
    for x in range(first_x, last_x):
        for y in range(len(node_y)):
            for z in range(len(node_z)):
                if not low <= bins[x, y, z] < high:
                    continue
                b = bins[x, y, z] - first_bin
                before, centre, after = _compiled_weights(offset[x, y, z], taps)
                for c in range(len(volumes)):
                    volumes[c, x, y, z] = 0
                for i in range(2):
                    weight_x = part_x[x] if i else one - part_x[x]
                    for j in range(2):
                        weight_xy = weight_x * (part_y[y] if j else one - part_y[y])
                        for k in range(2):
                            weight = weight_xy * (part_z[z] if k else one - part_z[z])
                            for c in range(len(volumes)):
                                line = grid[node_x[x] + i, node_y[y] + j, node_z[z] + k, c]
                                volumes[c, x, y, z] += weight * (
                                    before * line[b - 1] + centre * line[b] + after * line[b + 1]
                                )
