"""Bring the clicks of an annotation onto another grid of its scan."""

from __future__ import annotations

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation
from lib.data.grid import points_on_grid


def clicks_on_grid(annotation: Annotation, affine: np.ndarray) -> ExtremePoints:
    """Transform clicks to voxels of the grid with an affine (4, 4), voxel to RAS mm."""
    points, geometry = annotation.points, annotation.geometry
    foreground, background = (
        points_on_grid(geometry.voxel_to_ras(clicks), affine)
        for clicks in (points.foreground_voxel, points.background_voxel)
    )
    return ExtremePoints.from_clicks(points.label, foreground, background)
