"""Clicks in the patient's space, which hold on every grid of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation
from lib.data.grid import points_on_grid


@dataclass(frozen=True)
class WorldClicks:
    """Clicks on one structure in RAS millimetres, (N, 3) and (M, 3)."""

    label: str
    foreground_ras_mm: np.ndarray
    background_ras_mm: np.ndarray

    @classmethod
    def of(cls, annotation: Annotation) -> WorldClicks:
        points, geometry = annotation.points, annotation.geometry
        return cls(
            points.label,
            geometry.voxel_to_ras(points.foreground_voxel),
            geometry.voxel_to_ras(points.background_voxel),
        )

    def on_grid(self, affine: np.ndarray) -> ExtremePoints:
        """In voxels of the grid with this affine, (4, 4) voxel to RAS mm."""
        return ExtremePoints.from_clicks(
            self.label,
            points_on_grid(self.foreground_ras_mm, affine),
            points_on_grid(self.background_ras_mm, affine),
        )
