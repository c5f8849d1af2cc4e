"""Where the voxels of an image lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


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
    def canonical_spacing_mm(self) -> tuple[float, float, float]:
        """Spacing along the image axes that lie closest to right, anterior and superior."""
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
        """(..., 3) voxel indices to (..., 3) LPS millimetres."""
        return apply_affine(RAS_TO_LPS @ self.affine_ras, points_voxel)

    def voxel_to_ras(self, points_voxel: np.ndarray) -> np.ndarray:
        """(..., 3) voxel indices to (..., 3) RAS millimetres."""
        return apply_affine(self.affine_ras, points_voxel)

    def lps_to_voxel(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """(..., 3) LPS millimetres to (..., 3) continuous voxel indices."""
        return apply_affine(np.linalg.inv(RAS_TO_LPS @ self.affine_ras), points_lps_mm)

    def ras_to_voxel(self, points_ras_mm: np.ndarray) -> np.ndarray:
        """(..., 3) RAS millimetres to (..., 3) continuous voxel indices."""
        return apply_affine(np.linalg.inv(self.affine_ras), points_ras_mm)

    def contains(self, points_voxel: np.ndarray) -> np.ndarray:
        """(N, 3) integer voxel indices to (N,) bool: is the voxel in the image?"""
        return np.all((points_voxel >= 0) & (points_voxel < np.array(self.shape)), axis=-1)

    def voxels_apart(self, other: ImageGeometry) -> float:
        """The greatest distance of a corner from the other grid's, in voxels; infinite for another shape."""
        if self.shape != other.shape:
            return float("inf")
        corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(self.shape) - 1)
        apart_mm = np.linalg.norm(self.voxel_to_ras(corners) - other.voxel_to_ras(corners), axis=1).max()
        return float(apart_mm / min(self.spacing_mm))

    def is_close(self, other: ImageGeometry) -> bool:
        """The same grid, up to a thousandth of a millimetre."""
        return self.shape == other.shape and np.allclose(self.affine_ras, other.affine_ras, rtol=0, atol=1e-3)
