"""Spreading volumes over a bilateral grid and reading them back: compiled on the CPU, torch on the GPU.

Both go column by column along Z: a column's voxels meet its own nodes first, and all of them together those of
the grid around the column. That takes 9 operations a voxel, where meeting the grid one by one takes 81.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from lib.losses.interpolation_kernels import slice_planes, splat_planes
from lib.losses.splines import SplineAxis, spline_weights

Planes = slice
"""X planes of a volume; `Interpolation.slice` takes the name away from Python's type."""

MIN_VOXELS_FOR_THREADS = 2**14
"""Voxels below which starting threads takes longer than the work, some 1 ms."""

MAX_COLUMN_VALUES = 2**26
"""Values of the columns that the torch path holds at a time: 256 MB in float32."""

COLOURS = 3
"""A plane reaches three planes of nodes, so every third group of planes can be worked on at once."""


class Interpolation:
    """Weights between the voxels of an image and the nodes of a grid (Gx, Gy, Gz, C, W).

    Quadratic B-splines along all four axes; `splat` and `slice` are each other's transpose.

    Args:
        axes: for X, Y, Z.
        bins: (X, Y, Z) int32, bin nearest to each voxel's intensity.
        offset: (X, Y, Z), intensity's distance from the centre of its bin, in bins.
    """

    def __init__(self, axes: list[SplineAxis], bins: Tensor, offset: Tensor) -> None:
        self.axes = axes
        self.bins = bins
        self.offset = offset
        self.compiled = bins.device.type == "cpu"

    def splat(self, volumes: Tensor, grid: Tensor, first_bin: int) -> None:
        """Add volumes (C, X, Y, Z) to a grid whose bins start at `first_bin`.

        Voxels that would reach a bin outside the grid are left out.
        """
        bins = (first_bin + 1, first_bin + grid.shape[-1] - 1)
        if self.compiled:
            self._run_compiled(splat_planes, volumes, grid, first_bin, bins)
            return
        weights_x, weights_y = self._matrices(grid)
        for planes in self._slabs(grid):
            chosen, corners = self._corners(planes, grid, first_bin, bins)
            columns = grid.new_zeros(len(weights_x[planes]) * len(weights_y) * grid[0, 0].numel())
            sources = volumes[:, planes].flatten(start_dim=1)[:, chosen]
            for index, weight in corners:
                for channel, source in enumerate(sources):
                    columns.index_add_(0, index + channel * grid.shape[-1], weight * source)
            columns = columns.view(len(weights_x[planes]), len(weights_y), -1)
            lines = torch.matmul(weights_y.T, columns).flatten(start_dim=1)
            grid.view(len(grid), -1).addmm_(weights_x[planes].T, lines)

    def slice(self, grid: Tensor, volumes: Tensor, first_bin: int, bins: tuple[int, int]) -> None:
        """Read volumes (C, X, Y, Z) from the grid, at the voxels whose bin is in the half-open range `bins`."""
        if self.compiled:
            self._run_compiled(slice_planes, volumes, grid, first_bin, bins)
            return
        weights_x, weights_y = self._matrices(grid)
        for planes in self._slabs(grid):
            chosen, corners = self._corners(planes, grid, first_bin, bins)
            lines = (weights_x[planes] @ grid.view(len(grid), -1)).view(-1, grid.shape[1], grid[0, 0].numel())
            columns = torch.matmul(weights_y, lines).flatten()
            read = volumes.new_zeros(len(volumes), len(chosen))
            for index, weight in corners:
                for channel in range(len(volumes)):
                    read[channel].addcmul_(weight, columns[index + channel * grid.shape[-1]])
            slab = volumes[:, planes].flatten(start_dim=1)
            slab[:, chosen] = read
            volumes[:, planes] = slab.view_as(volumes[:, planes])

    def _matrices(self, grid: Tensor) -> list[Tensor]:
        """Weights of the X and Y axes as matrices (X, Gx) and (Y, Gy)."""
        return [torch.as_tensor(axis.matrix(grid.shape[n])).to(grid) for n, axis in enumerate(self.axes[:2])]

    def _slabs(self, grid: Tensor) -> Iterator[Planes]:
        """Slices of X planes whose columns fit into `MAX_COLUMN_VALUES`."""
        size, width = self.bins.shape[:2]
        planes = max(1, MAX_COLUMN_VALUES // (width * grid[0, 0].numel()))
        return (Planes(first, first + planes) for first in range(0, size, planes))

    def _corners(
        self, planes: Planes, grid: Tensor, first_bin: int, bins: tuple[int, int]
    ) -> tuple[Tensor, Iterator[tuple[Tensor, Tensor]]]:
        """The voxels of a slab in `bins`, and for each column value around them its index and their weight."""
        slab = self.bins[planes]
        chosen = ((slab >= bins[0]) & (slab < bins[1])).flatten().nonzero().flatten()
        node, weights = (torch.as_tensor(part).to(grid.device) for part in self.axes[2])
        column, z = chosen // slab.shape[2], chosen % slab.shape[2]
        splines = spline_weights(self.offset[planes].flatten()[chosen])
        first = (column * grid.shape[2] + node[z]) * grid.stride(2) + slab.flatten()[chosen] - first_bin

        def corners() -> Iterator[tuple[Tensor, Tensor]]:
            for step in range(3):
                weight = weights[z, step].to(grid)
                for shift, spline in zip((-1, 0, 1), splines, strict=True):
                    yield first + (step - 1) * grid.stride(2) + shift, weight * spline

        return chosen, corners()

    def _run_compiled(
        self, kernel: Callable[..., None], volumes: Tensor, grid: Tensor, first_bin: int, bins: tuple[int, int]
    ) -> None:
        """Run a kernel over the X planes, those nearest to the same node as one task.

        Tasks that reach the same node never run together, so none waits for another and the sums are always in
        the same order.
        """
        planes = np.flatnonzero(np.diff(self.axes[0].node, prepend=-1, append=-1))
        tasks = list(zip(planes, planes[1:], strict=False))
        dtype = volumes.numpy().dtype
        axes = tuple((node, weights.astype(dtype)) for node, weights in self.axes)
        arguments = (volumes.numpy(), grid.numpy(), axes, self.bins.numpy(), self.offset.numpy())

        def run(task: tuple[int, int]) -> None:
            kernel(*task, *arguments, first_bin, *bins)

        if self.bins.numel() < MIN_VOXELS_FOR_THREADS:
            run((0, len(self.bins)))
            return
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for colour in range(COLOURS):
                list(pool.map(run, tasks[colour::COLOURS]))
