"""Average a part of an image onto coarser voxels, to bound the time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lib.geometry.boxes import Box


@dataclass(frozen=True)
class WorkingGrid:
    """Box of an image whose voxels are averaged in blocks.

    Attributes:
        box: the part of the image.
        factors: image voxels per voxel of the grid, along each axis.
        spacing_mm: of the grid's voxels.
    """

    box: Box
    factors: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def over(cls, box: Box, spacing_mm: tuple[float, float, float], max_voxels: int) -> WorkingGrid:
        """Return the finest grid over a box with at most `max_voxels`; the finest axes are coarsened first."""
        factors, spacing = np.ones(3, dtype=int), np.array(spacing_mm, dtype=float)
        while np.prod(-(-np.array(box.shape) // factors)) > max_voxels:
            finest = np.where(np.array(box.shape) > factors, factors * spacing, np.inf)
            factors[np.isclose(finest, finest.min())] += 1
        i, j, k = (int(f) for f in factors)
        x, y, z = (float(s) for s in factors * spacing)
        return cls(box, (i, j, k), (x, y, z))

    @property
    def shape(self) -> tuple[int, int, int]:
        i, j, k = (-(-size // factor) for size, factor in zip(self.box.shape, self.factors, strict=True))
        return i, j, k

    def points(self, points_voxel: np.ndarray) -> np.ndarray:
        """Convert int voxels (..., 3) of the image to voxels of the grid, which may lie outside of it."""
        return (points_voxel - np.array(self.box.start)) // np.array(self.factors)

    def averaged(self, image: np.ndarray) -> np.ndarray:
        """Average an image (X, Y, Z) to the grid, (x, y, z) float32."""
        values = np.asarray(image[self.box.slices], dtype=np.float32)
        if self.factors == (1, 1, 1):
            return values
        missing = np.multiply(self.shape, self.factors) - self.box.shape
        values = np.pad(values, [(0, int(n)) for n in missing], mode="edge")
        blocks = [n for size, factor in zip(self.shape, self.factors, strict=True) for n in (size, factor)]
        return values.reshape(blocks).mean(axis=(1, 3, 5))

    def on_image_voxels(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask of the grid on the image's voxels in the box, with an interpolated surface."""
        return mask if self.factors == (1, 1, 1) else self.interpolated(mask.astype(np.float32)) > 0.5

    def interpolated(self, values: np.ndarray) -> np.ndarray:
        """Interpolate values (X, Y, Z) float32 of the grid linearly to the image's voxels in the box."""
        if self.factors == (1, 1, 1):
            return values
        factors = np.array(self.factors, dtype=float)
        # Centres of blocks of f voxels lie at (f - 1) / 2, f + (f - 1) / 2, ...
        return ndimage.affine_transform(
            values,
            1 / factors,
            offset=-(factors - 1) / (2 * factors),
            output_shape=self.box.shape,
            order=1,
            mode="nearest",
        )

    def repeated(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask of the grid on the image's voxels in the box, every coarse voxel as a block."""
        for axis, factor in enumerate(self.factors):
            mask = np.repeat(mask, factor, axis=axis) if factor > 1 else mask
        x, y, z = self.box.shape
        return mask[:x, :y, :z]
