"""What clicks tell of the truth, and how far a mask agrees with it. No mask of the clicks is needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lib.annotations.extreme_points import ExtremePoints
from lib.geometry.image_geometry import Spacing
from lib.supervision.boxes import Box


@dataclass(frozen=True)
class ClickFacts:
    """How a mask stands to six clicks.

    Attributes:
        extremes_mm: mean distance, in mm and along each axis, of the ends of the mask from those that were clicked; of
            the mask's part that meets the relaxed box. Infinite for an empty mask.
        box_overlap: intersection over union, in [0, 1], of the tight boxes of that part and of the clicks.
        clicks_covered: share of the clicks, in [0, 1], that lie in the mask or next to it.
        geodesics_covered: share of the voxels of the geodesics, in [0, 1], that lie in the mask.
        outside: share of the mask, in [0, 1], that lies outside of the relaxed box; 1 for an empty mask.
    """

    extremes_mm: float
    box_overlap: float
    clicks_covered: float
    geodesics_covered: float
    outside: float

    @property
    def score(self) -> float:
        """In [0, 1]: how far the mask reaches over box and geodesics of the clicks, less what lies outside."""
        return (1 - self.outside) * (self.box_overlap + self.geodesics_covered) / 2

    @classmethod
    def of(
        cls, mask: np.ndarray, points: ExtremePoints, geodesics: list[np.ndarray], spacing_mm: Spacing, margin: int
    ) -> ClickFacts:
        """Compares.

        Args:
            mask: (X, Y, Z) bool.
            points: in voxels of the mask.
            geodesics: (n, 3) voxels each.
            margin: voxels by which the tight box is relaxed.
        """
        tight = Box.around(points.foreground_voxel)
        relaxed = tight.relaxed(margin, mask.shape)
        voxels = int(mask.sum())
        if voxels == 0:
            return cls(float("inf"), 0.0, 0.0, 0.0, 1.0)
        outside = 1 - int(mask[relaxed.slices].sum()) / voxels
        paths = np.concatenate(geodesics)
        paths = paths[np.all((paths >= 0) & (paths < mask.shape), axis=1)]
        geodesics_covered = float(mask[tuple(paths.T)].mean()) if len(paths) else 0.0
        clicks = np.clip(points.extremes_voxel.reshape(-1, 3), 0, np.array(mask.shape) - 1)
        around = ndimage.maximum_filter(mask[tight.relaxed(2, mask.shape).slices], size=3)
        start = np.array(tight.relaxed(2, mask.shape).start)
        clicks_covered = float(around[tuple((clicks - start).T)].mean())
        part = _part_in(mask, relaxed)
        if part is None:
            return cls(float("inf"), 0.0, clicks_covered, geodesics_covered, outside)
        ends = np.abs(np.subtract([part.start, part.stop], [tight.start, tight.stop])) * spacing_mm
        return cls(float(ends.mean()), _overlap(part, tight), clicks_covered, geodesics_covered, outside)


def _part_in(mask: np.ndarray, relaxed: Box) -> Box | None:
    """The box of the parts of a mask that reach into a box: a speck far away says nothing of the ends."""
    parts, _ = ndimage.label(mask)
    meeting = np.unique(parts[relaxed.slices])
    meeting = meeting[meeting > 0]
    if not len(meeting):
        return None
    found = [part for number, part in enumerate(ndimage.find_objects(parts), start=1) if number in meeting]
    low = np.min([[axis.start for axis in part] for part in found], axis=0)
    high = np.max([[axis.stop for axis in part] for part in found], axis=0)
    return Box(tuple(low.tolist()), tuple(high.tolist()))


def _overlap(one: Box, other: Box) -> float:
    shared = np.maximum(0, np.minimum(one.stop, other.stop) - np.maximum(one.start, other.start)).prod()
    return float(shared / (np.prod(one.shape) + np.prod(other.shape) - shared))
