"""Represent axis-aligned boxes of voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Box:
    """Half-open box of voxels: `start` is its first voxel, `stop` is one past its last, per axis."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @classmethod
    def around(cls, points_voxel: np.ndarray) -> Box:
        """Return the tight box of points (N, 3) in voxels (paper, Section 3.1: B_tight)."""
        points_voxel = np.asarray(points_voxel)
        if points_voxel.ndim != 2 or points_voxel.shape[1] != 3 or len(points_voxel) == 0:
            raise ValueError(f"points_voxel has shape {points_voxel.shape}; expected (N, 3) with N >= 1")
        low, high = points_voxel.min(axis=0), points_voxel.max(axis=0)
        return cls(_as_triple(low), _as_triple(high + 1))

    @classmethod
    def of_mask(cls, mask: np.ndarray) -> Box | None:
        """Return the tight box of a mask (X, Y, Z) bool; None for an empty mask."""
        filled = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        if not filled[0].size:
            return None
        return cls(_as_triple(np.array([f[0] for f in filled])), _as_triple(np.array([f[-1] + 1 for f in filled])))

    @property
    def shape(self) -> tuple[int, int, int]:
        return _as_triple(np.subtract(self.stop, self.start))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box into an array (X, Y, Z)."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))  # type: ignore[return-value]

    def relaxed(self, margin_voxels: int | tuple[int, int, int], image_shape: tuple[int, ...]) -> Box:
        """Return the box grown by a margin and clipped to the image (paper, Section 3.1: B_relax)."""
        start = np.maximum(np.subtract(self.start, margin_voxels), 0)
        stop = np.minimum(np.add(self.stop, margin_voxels), image_shape)
        return Box(_as_triple(start), _as_triple(np.maximum(stop, start)))

    def shifted(self, offset_voxel: np.ndarray) -> Box:
        """Translate the box, for example into the voxels of a patch whose first voxel is `-offset_voxel`."""
        return Box(_as_triple(np.add(self.start, offset_voxel)), _as_triple(np.add(self.stop, offset_voxel)))


def _as_triple(values: np.ndarray) -> tuple[int, int, int]:
    i, j, k = (int(v) for v in values)
    return i, j, k
