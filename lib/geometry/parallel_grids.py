"""Resample between grids with parallel axes, such as those of a scan and of a network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_PARALLEL = 1e-3
"""Maximum component of a step along other axes, as a share of the component along its own axis."""


@dataclass(frozen=True, eq=False)
class ParallelGrids:
    """Mapping from the voxels of a target grid to those of a source grid.

    Along each target axis: source voxel = scale * target voxel + offset.

    Attributes:
        source_axes: for each target axis, the source axis along it.
        scale, offset: (3,) float, by target axis; a scale is negative if the axes have opposite directions.
    """

    source_axes: tuple[int, int, int]
    scale: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(cls, target_affine: np.ndarray, source_affine: np.ndarray) -> ParallelGrids:
        """Create from the affines (4, 4) of both grids, voxel to mm.

        Raises:
            ValueError: their axes are not parallel.
        """
        matrix = np.linalg.inv(source_affine) @ target_affine
        steps = np.abs(matrix[:3, :3])
        along = steps.argmax(axis=0)
        largest = steps.max(axis=0)
        if sorted(along.tolist()) != [0, 1, 2] or (steps.sum(axis=0) - largest > _PARALLEL * largest).any():
            raise ValueError(f"The axes of two grids are not parallel: {matrix[:3, :3].tolist()}")
        i, j, k = along.tolist()
        return cls((i, j, k), matrix[along, [0, 1, 2]], matrix[along, 3])

    def coordinates(self, target_axis: int, first: int, last: int) -> np.ndarray:
        """Return the positions (N,) float of the target voxels [first, last) on the corresponding source axis."""
        return self.scale[target_axis] * np.arange(first, last) + self.offset[target_axis]

    def source_range(self, target_axis: int, first: int, last: int, source_shape: Sequence[int]) -> tuple[int, int]:
        """Return the range [first, last) of source voxels that target voxels are interpolated from, at least one."""
        ends = np.sort(self.coordinates(target_axis, first, last)[[0, -1]])
        length = source_shape[self.source_axes[target_axis]]
        low, high = np.clip([np.floor(ends[0]), np.ceil(ends[1])], 0, length - 1).astype(int).tolist()
        return low, high + 1

    def interpolated(
        self, source: torch.Tensor, source_start: Sequence[int], target_start: Sequence[int], target_stop: Sequence[int]
    ) -> torch.Tensor:
        """Interpolate a box of the target linearly; beyond the source, its outermost voxels are repeated.

        Args:
            source: (..., X, Y, Z), a part of the source that contains all voxels of `source_range`.
            source_start: first voxel of that part.
            target_start, target_stop: of the box.

        Returns:
            (..., X', Y', Z') float32, a view in the order of the target's axes.
        """
        values = source.float()
        kept = values.ndim - 3
        for target_axis, source_axis in enumerate(self.source_axes):
            where = self.coordinates(target_axis, target_start[target_axis], target_stop[target_axis])
            values = interpolated_along(values, kept + source_axis, where - source_start[source_axis])
        return values.permute(*range(kept), *(kept + axis for axis in self.source_axes))


def interpolated_along(values: torch.Tensor, axis: int, coordinates: np.ndarray) -> torch.Tensor:
    """Interpolate linearly at coordinates (N,) along an axis; beyond the ends, the outermost voxels are repeated.

    Args:
        values: float32.
    """
    where = torch.from_numpy(np.clip(coordinates, 0, values.shape[axis] - 1))
    below = where.floor().long()
    share = (where - below).float()
    lower = values.index_select(axis, below)
    if not share.any():
        return lower
    upper = values.index_select(axis, (below + 1).clamp_(max=values.shape[axis] - 1))
    return lower.lerp_(upper, share.view(-1, *[1] * (values.ndim - 1 - axis)))
