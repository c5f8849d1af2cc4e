"""Map an image to the frame of a structure's tight box, in which structures of a label are comparable."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from lib.clickmask.working_grid import WorkingGrid

SIDE = 24
"""Samples along each axis of a volume in the frame."""

CONTEXT = 0.25
"""Margin of a volume in the frame beyond each face, as a share of the box's extent."""


@dataclass(frozen=True, eq=False)
class BoxFrame:
    """Positions in a tight box: from 0 at its left, posterior and inferior face to 1 at the opposite face.

    The box has the axes of the image. In an oblique scan, each axis represents the closest anatomical direction, so
    neither the order nor the sign of the image axes matters.

    Attributes:
        axes: for each image axis, the anatomical axis along it: right, anterior, superior (0, 1, 2).
        towards: for each image axis, True if its index grows in that direction.
        low_voxel, high_voxel: (3,) positions of the box's faces on the image axes, half a voxel outside the outermost
            voxels.
    """

    axes: tuple[int, int, int]
    towards: tuple[bool, bool, bool]
    low_voxel: np.ndarray
    high_voxel: np.ndarray

    @classmethod
    def around(cls, points_voxel: np.ndarray, affine_ras: np.ndarray) -> BoxFrame:
        """Return the frame of points (..., 3) in voxels of an image with an affine (4, 4), voxel to RAS mm."""
        points = np.asarray(points_voxel).reshape(-1, 3)
        orientation = nib.io_orientation(affine_ras)
        i, j, k = orientation[:, 0].astype(int).tolist()
        x, y, z = (orientation[:, 1] > 0).tolist()
        return cls((i, j, k), (x, y, z), points.min(axis=0) - 0.5, points.max(axis=0) + 0.5)

    def positions(self, points_voxel: np.ndarray) -> np.ndarray:
        """Convert voxels (..., 3) to positions along right, anterior, superior."""
        along = (np.asarray(points_voxel) - self.low_voxel) / (self.high_voxel - self.low_voxel)
        along = np.where(self.towards, along, 1 - along)
        return along[..., np.argsort(self.axes)]

    def extremes(self, extremes_voxel: np.ndarray) -> np.ndarray:
        """Convert extreme points (3, 2, 3) along the image axes to positions (3, 2, 3) along the anatomical axes."""
        extremes = self.positions(extremes_voxel)[np.argsort(self.axes)]
        against = [axis for axis, towards in zip(self.axes, self.towards, strict=True) if not towards]
        extremes[against] = extremes[against, ::-1]
        return extremes

    def sampled(self, volume: np.ndarray, origin_voxel: np.ndarray) -> np.ndarray:
        """Resample a part of the image to the frame, averaged where the frame's samples are coarser.

        Args:
            volume: (X, Y, Z) of the image, starting at `origin_voxel` (3,); outside, its outermost voxels are repeated.

        Returns:
            (SIDE, SIDE, SIDE) float32 along right, anterior, superior.
        """
        where, steps = [], []
        for axis in range(3):
            low, high = self.low_voxel[axis], self.high_voxel[axis]
            along = low + sample_positions() * (high - low) - origin_voxel[axis]
            where.append(along if self.towards[axis] else along[::-1])
            steps.append((high - low) * (1 + 2 * CONTEXT) / SIDE)
        blurred = ndimage.gaussian_filter(volume.astype(np.float32), [max(0.0, step - 1) / 2 for step in steps])
        lines = (line.astype(np.float32) for line in where)
        sampled = ndimage.map_coordinates(blurred, np.meshgrid(*lines, indexing="ij"), order=1, mode="nearest")
        return sampled.transpose(np.argsort(self.axes)).astype(np.float32)

    def on_grid(self, sampled: np.ndarray, grid: WorkingGrid) -> np.ndarray:
        """Resample a volume (SIDE, SIDE, SIDE) in the frame to a grid over the image: (X, Y, Z) float32."""
        turned = sampled.transpose(self.axes)
        lines = []
        for axis, (size, factor) in enumerate(zip(grid.shape, grid.factors, strict=True)):
            middles = grid.box.start[axis] + factor * np.arange(size) + (factor - 1) / 2
            along = (middles - self.low_voxel[axis]) / (self.high_voxel[axis] - self.low_voxel[axis])
            lines.append(sample_indices(along if self.towards[axis] else 1 - along).astype(np.float32))
        return ndimage.map_coordinates(turned, np.meshgrid(*lines, indexing="ij"), order=1, mode="nearest")


def sample_positions() -> np.ndarray:
    """Return the positions (SIDE,) of a volume's samples along an axis."""
    return (np.arange(SIDE) + 0.5) / SIDE * (1 + 2 * CONTEXT) - CONTEXT


def sample_indices(positions: np.ndarray) -> np.ndarray:
    """Convert positions to fractional sample indices."""
    return (positions + CONTEXT) / (1 + 2 * CONTEXT) * SIDE - 0.5
