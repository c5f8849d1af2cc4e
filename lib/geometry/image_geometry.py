"""Convert between voxel indices and patient coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

Spacing = tuple[float, float, float]
"""Millimetres between voxels, along three axes."""

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Headers are rounded: direction cosines of four digits move the last of 1000 voxels by up to 0.087 voxels. With a
# larger tolerance, a click could hit the neighbour of the voxel under the mouse.
GRID_TOLERANCE_VOXELS = 0.1
# The error of four-digit cosines is up to 5e-5, and that of the dot product of two unit vectors up to
# 2 * sqrt(3) * 5e-5 = 1.7e-4. Axes that are one degree off a right angle have a dot product of 1.7e-2.
DIRECTION_TOLERANCE = 2e-4


@dataclass(frozen=True, eq=False)
class ImageGeometry:
    """Grid of a volume as stored.

    Attributes:
        shape: voxels along the image axes (i, j, k).
        affine_ras: (4, 4) float; voxel index (i, j, k, 1) to RAS millimetres.
    """

    shape: tuple[int, int, int]
    affine_ras: np.ndarray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along i, j, k."""
        i, j, k = (float(s) for s in nib.affines.voxel_sizes(self.affine_ras))
        return i, j, k

    @property
    def canonical_spacing_mm(self) -> Spacing:
        """Spacing along the image axes that are closest to right, anterior and superior."""
        toward_ras = nib.io_orientation(self.affine_ras)[:, 0].astype(int)
        right, anterior, superior = (float(self.spacing_mm[i]) for i in np.argsort(toward_ras))
        return right, anterior, superior

    @property
    def end_names(self) -> tuple[tuple[str, str], ...]:
        """Anatomical names of the low and the high end of each image axis, such as ("left", "right")."""
        opposite = {"R": "left", "L": "right", "A": "posterior", "P": "anterior", "S": "inferior", "I": "superior"}
        towards = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}
        return tuple((opposite[code], towards[code]) for code in nib.aff2axcodes(self.affine_ras))

    def voxel_to_lps(self, points_voxel: np.ndarray) -> np.ndarray:
        """Convert voxel indices (..., 3) to LPS millimetres (..., 3)."""
        return apply_affine(RAS_TO_LPS @ self.affine_ras, points_voxel)

    def voxel_to_ras(self, points_voxel: np.ndarray) -> np.ndarray:
        """Convert voxel indices (..., 3) to RAS millimetres (..., 3)."""
        return apply_affine(self.affine_ras, points_voxel)

    def lps_to_voxel(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """Convert LPS millimetres (..., 3) to continuous voxel indices (..., 3)."""
        return apply_affine(np.linalg.inv(RAS_TO_LPS @ self.affine_ras), points_lps_mm)

    def ras_to_voxel(self, points_ras_mm: np.ndarray) -> np.ndarray:
        """Convert RAS millimetres (..., 3) to continuous voxel indices (..., 3)."""
        return apply_affine(np.linalg.inv(self.affine_ras), points_ras_mm)

    def contains(self, points_voxel: np.ndarray) -> np.ndarray:
        """Tell for each voxel index (N, 3) whether it is in the image, (N,) bool."""
        return np.all((points_voxel >= 0) & (points_voxel < np.array(self.shape)), axis=-1)

    def mm_apart(self, other: ImageGeometry) -> float:
        """Return the largest distance between corresponding corners of two grids, in mm; infinite for another shape."""
        if self.shape != other.shape:
            return float("inf")
        corners_voxel = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(self.shape) - 1)
        apart_mm = self.voxel_to_ras(corners_voxel) - other.voxel_to_ras(corners_voxel)
        return float(np.linalg.norm(apart_mm, axis=1).max())

    def voxels_apart(self, other: ImageGeometry) -> float:
        """Return `mm_apart` in units of the smallest spacing of this grid."""
        return self.mm_apart(other) / min(self.spacing_mm)

    def is_close(self, other: ImageGeometry) -> bool:
        """Tell whether corresponding corners are at most `GRID_TOLERANCE_VOXELS` apart, by the rounding of headers."""
        return self.mm_apart(other) <= GRID_TOLERANCE_VOXELS * min(self.spacing_mm)
