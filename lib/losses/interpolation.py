"""Splat volumes on a bilateral grid and slice them from it: compiled on the CPU, in torch on the GPU.

Both work axis by axis: from a line of voxels along Z to the nodes of its column, from columns to planes, and from
planes to the grid. This takes 12 operations for each voxel, instead of 108 for all nodes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.losses.interpolation_kernels import cubic_weights, slice_planes, splat_planes

Planes = slice
"""Range of X planes of a volume; `Interpolation.slice` shadows Python's type inside the class."""

MIN_VOXELS_FOR_THREADS = 2**14
"""With fewer voxels, starting threads takes longer than the work, about 1 ms."""

MAX_COLUMN_VALUES = 2**26
"""Values of the columns that the torch implementation holds at a time: 256 MB in float32."""

COLOURS = 3
"""A plane reaches three planes of nodes, so that every third group of planes can be processed in parallel."""


class SplineAxis(NamedTuple):
    """Quadratic B-spline interpolation between the n voxels of an image axis and grid nodes.

    Attributes:
        node: (n,) int64, node nearest to each voxel.
        weights: (n, 3), weights of the voxel at the node before the nearest, the nearest, and the node after it.
    """

    node: np.ndarray
    weights: np.ndarray

    def matrix(self, nodes: int) -> np.ndarray:
        """Return the weights (n, nodes) of all voxels at all nodes."""
        matrix = np.zeros((len(self.node), nodes))
        for shift in range(3):
            matrix[np.arange(len(self.node)), self.node + shift - 1] = self.weights[:, shift]
        return matrix


def quadratic_weights(offset: np.ndarray) -> np.ndarray:
    """Return B-spline weights (n, 3) at the nearest node and its neighbours, for offsets (n,) in [-0.5, 0.5]."""
    before, after = 0.5 * (0.5 - offset) ** 2, 0.5 * (0.5 + offset) ** 2
    return np.stack([before, 1 - before - after, after], axis=1)


class Interpolation:
    """Weights between the voxels of an image and the nodes of a grid (Gx, Gy, Gz, C, W).

    Quadratic B-splines in space, cubic ones in intensity; `splat` and `slice` are each other's transpose.

    Args:
        axes: for X, Y, Z.
        bins: (X, Y, Z) int32, bin at or below each voxel's intensity.
        offset: (X, Y, Z) in [0, 1], position between this bin and the next.
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
        bins = (first_bin + 1, first_bin + grid.shape[-1] - 2)
        if self.compiled:
            self._run_compiled(splat_planes, volumes, grid, first_bin, bins)
            return
        weights_x, weights_y = self._matrices(grid)
        for planes in self._slabs(grid):
            chosen, index, weight = self._column_weights(planes, grid, first_bin, bins)
            sources = volumes[:, planes].flatten(start_dim=1)[:, chosen]
            columns = grid.new_zeros(len(weights_x[planes]) * len(weights_y) * grid[0, 0].numel())
            columns.index_add_(0, index.flatten(), (weight * sources).flatten())
            columns = columns.view(len(weights_x[planes]), len(weights_y), -1)
            lines = torch.matmul(weights_y.T, columns).flatten(start_dim=1)
            grid.view(len(grid), -1).addmm_(weights_x[planes].T, lines)

    def slice(self, grid: Tensor, volumes: Tensor, first_bin: int, bins: tuple[int, int]) -> None:
        """Read contiguous volumes (C, X, Y, Z) from the grid, where a voxel's bin is in the half-open range `bins`."""
        if self.compiled:
            self._run_compiled(slice_planes, volumes, grid, first_bin, bins)
            return
        weights_x, weights_y = self._matrices(grid)
        for planes in self._slabs(grid):
            chosen, index, weight = self._column_weights(planes, grid, first_bin, bins)
            lines = (weights_x[planes] @ grid.view(len(grid), -1)).view(-1, grid.shape[1], grid[0, 0].numel())
            columns = torch.matmul(weights_y, lines).flatten()
            volumes[:, planes].view(len(volumes), -1)[:, chosen] = (weight * columns[index]).sum(dim=0)

    def _matrices(self, grid: Tensor) -> list[Tensor]:
        """Return the weights of the X and Y axes as matrices (X, Gx) and (Y, Gy)."""
        return [torch.as_tensor(axis.matrix(grid.shape[n])).to(grid) for n, axis in enumerate(self.axes[:2])]

    def _slabs(self, grid: Tensor) -> Iterator[Planes]:
        """Split the X planes into ranges whose columns fit into `MAX_COLUMN_VALUES`."""
        size, width = self.bins.shape[:2]
        planes = max(1, MAX_COLUMN_VALUES // (width * grid[0, 0].numel()))
        return (Planes(first, first + planes) for first in range(0, size, planes))

    def _column_weights(
        self, planes: Planes, grid: Tensor, first_bin: int, bins: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the n voxels of a slab in `bins`, their indices in its columns (12, C, n) and weights (12, 1, n).

        All twelve are computed at once, because many small operations are slow on a GPU.
        """
        slab = self.bins[planes]
        chosen = ((slab >= bins[0]) & (slab < bins[1])).flatten().nonzero().flatten()
        node, weights = (torch.as_tensor(part).to(grid.device) for part in self.axes[2])
        column, z = chosen // slab.shape[2], chosen % slab.shape[2]
        splines = torch.stack(cubic_weights(self.offset[planes].flatten()[chosen]))
        weight = weights.to(grid).T[:, None, z] * splines

        channels, width = grid.shape[-2:]
        along_z = (column * grid.shape[2] + node[z]) * channels * width + slab.flatten()[chosen] - first_bin
        steps = torch.arange(-1, 2, device=grid.device) * channels * width
        shifts = torch.arange(-1, 3, device=grid.device)
        corner = (steps[:, None] + shifts).flatten()[:, None] + torch.arange(channels, device=grid.device) * width
        return chosen, corner[..., None] + along_z, weight.flatten(end_dim=1)[:, None]

    def _run_compiled(
        self, kernel: Callable[..., None], volumes: Tensor, grid: Tensor, first_bin: int, bins: tuple[int, int]
    ) -> None:
        """Run a kernel over all X planes, in threads for large volumes."""
        dtype = volumes.numpy().dtype
        axes = tuple((node, weights.astype(dtype)) for node, weights in self.axes)
        arguments = (volumes.numpy(), grid.numpy(), axes, self.bins.numpy(), self.offset.numpy())

        def run(task: tuple[int, int]) -> None:
            kernel(*task, *arguments, first_bin, bins)

        if self.bins.numel() < MIN_VOXELS_FOR_THREADS:
            run((0, len(self.bins)))
            return
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for tasks in independent_tasks(self.axes[0].node):
                list(pool.map(run, tasks))


def independent_tasks(node: np.ndarray) -> list[list[tuple[int, int]]]:
    """Split planes with nearest nodes `node` (n,) into ranges [first, last), and these into lists to run in parallel.

    The ranges of one list reach different nodes, so that they are independent and sums keep their order.
    """
    bounds = np.flatnonzero(np.diff(node, prepend=-1, append=-1)).tolist()
    ranges = list(zip(bounds, bounds[1:], strict=False))
    return [ranges[colour::COLOURS] for colour in range(COLOURS)]
