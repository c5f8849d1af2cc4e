"""Map patches into the grid of a scan: crop, rotate, scale and flip in one resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from lib.annotations.extreme_points import ExtremePoints
from lib.geometry.boxes import Box

Size = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class PatchMap:
    """Map from voxels of a patch to voxels of the scan: scan voxel = matrix @ patch voxel + offset.

    Attributes:
        size: voxels of the patch (X, Y, Z).
        matrix: (3, 3), invertible.
        offset: (3,).
    """

    size: Size
    matrix: np.ndarray
    offset: np.ndarray

    @classmethod
    def about_centre(cls, size: Size, corner: Sequence[int], matrix: np.ndarray) -> PatchMap:
        """Make a patch that begins at `corner`, transformed about its centre by `matrix`."""
        centre = (np.array(size) - 1) / 2
        return cls(size, matrix, np.add(corner, centre) - matrix @ centre)

    @property
    def is_cut(self) -> bool:
        """True if each voxel of the patch is a voxel of the scan, with axes kept or mirrored: no interpolation."""
        return np.array_equal(np.abs(self.matrix), np.eye(3)) and np.array_equal(self.offset, np.rint(self.offset))

    @cached_property
    def coordinates(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Coordinates (X, Y, Z) float32 along each axis of the scan, in its voxels."""
        i, j, k = (torch.arange(n, dtype=torch.float32) for n in self.size)
        i, j = i[:, None, None], j[:, None]
        x, y, z = (m[0] * i + m[1] * j + m[2] * k + o for m, o in zip(self.matrix.tolist(), self.offset, strict=True))
        return x, y, z

    def points(self, points_voxel: np.ndarray) -> np.ndarray:
        """Map voxels (..., 3) of the scan to the nearest voxels (..., 3) int64 of the patch, or outside it."""
        inverse = np.linalg.inv(self.matrix)
        return np.rint((np.asarray(points_voxel) - self.offset) @ inverse.T).astype(np.int64)

    def holds(self, voxel: np.ndarray) -> bool:
        """Tell whether the voxel (3,) of the scan lies in the patch."""
        point = self.points(voxel)
        return bool(np.all((point >= 0) & (point < np.array(self.size))))

    def clicks(self, points: ExtremePoints) -> ExtremePoints:
        """Map clicks from voxels of the scan to voxels of the patch. Mirroring does not swap low and high ends."""
        return ExtremePoints(
            points.label,
            self.points(points.extremes_voxel),
            self.points(points.foreground_voxel),
            self.points(points.background_voxel),
        )

    def inside(self, box: Box) -> torch.Tensor:
        """Return the voxels of the patch that lie in a box of the scan, (X, Y, Z) bool."""
        if self.is_cut:
            mask = torch.zeros(self.size, dtype=torch.bool)
            start = np.clip(box.start - self._first, 0, self.size)
            stop = np.clip(box.stop - self._first, 0, self.size)
            mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
            return mask.flip(self._mirrored)
        x, y, z = (
            (c >= start - 0.5) & (c < stop - 0.5)
            for c, start, stop in zip(self.coordinates, box.start, box.stop, strict=True)
        )
        return x & y & z

    def sampled(self, voxels: torch.Tensor, *, nearest: bool = False) -> torch.Tensor:
        """Sample the patch (X, Y, Z) float32 of a volume (X', Y', Z') by linear interpolation; 0 outside the scan.

        Args:
            nearest: use the nearest voxel instead, for label indices.
        """
        if self.is_cut:
            return _cut(voxels, self._first, self.size).flip(self._mirrored)
        corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(self.size) - 1)
        reached = corners @ self.matrix.T + self.offset
        start = np.floor(reached.min(axis=0)).astype(int) - 1
        stop = np.ceil(reached.max(axis=0)).astype(int) + 2
        source = _cut(voxels, start, stop - start)
        # grid_sample takes the last axis first, and has the first and last voxel at -1 and 1.
        z, y, x = (
            (c - first) * (2 / (n - 1)) - 1
            for c, first, n in list(zip(self.coordinates, start.tolist(), source.shape, strict=True))[::-1]
        )
        return functional.grid_sample(
            source[None, None],
            torch.stack([z, y, x], dim=-1)[None],
            mode="nearest" if nearest else "bilinear",
            align_corners=True,
        )[0, 0]

    @property
    def _mirrored(self) -> list[int]:
        """Axes of a cut that are reversed."""
        return [axis for axis in range(3) if self.matrix[axis, axis] < 0]

    @property
    def _first(self) -> np.ndarray:
        """Lowest voxel of a cut in the scan."""
        last = self.matrix @ (np.array(self.size) - 1) + self.offset
        return np.minimum(self.offset, last).astype(int)


def _cut(voxels: torch.Tensor, start: np.ndarray, size: Sequence[int] | np.ndarray) -> torch.Tensor:
    """Crop (X, Y, Z) float32 from `start`, 0 outside the volume."""
    patch = torch.zeros(tuple(size))
    stop = start + np.array(size)
    low, high = np.maximum(start, 0), np.minimum(stop, voxels.shape)
    if (low < high).all():
        source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        target = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
        patch[target] = voxels[source].float()
    return patch
