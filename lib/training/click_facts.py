"""Measure how well a mask agrees with six clicks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lib.annotations.extreme_points import ExtremePoints
from lib.geometry.boxes import Box


@dataclass(frozen=True)
class ClickFacts:
    """Agreement of a mask with six clicks.

    Attributes:
        box_overlap: intersection over union, in [0, 1], of the tight box of the clicks and that of the components of
            the mask that intersect the relaxed box.
        geodesics_covered: share of the voxels of the geodesics, in [0, 1], that lie in the mask.
        faces_covered: mean share, in [0, 1], of the six faces of the tight box that lie in the mask. It is small for
            a correct mask, because a structure touches the faces with its ends only.
        outside: share of the mask, in [0, 1], that lies outside the relaxed box; 1 for an empty mask.
    """

    box_overlap: float
    geodesics_covered: float
    faces_covered: float
    outside: float

    @property
    def score(self) -> float:
        """Click score in [0, 1]. It ranks networks like the Dice with the truth (docs/method.md)."""
        return (1 - self.outside) * (1 - self.faces_covered) * self.geodesics_covered * math.sqrt(self.box_overlap)

    @classmethod
    def of(cls, mask: np.ndarray, points: ExtremePoints, geodesics: list[np.ndarray], margin: int) -> ClickFacts:
        """Compare a mask with clicks.

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
            return cls(0.0, 0.0, 0.0, 1.0)
        outside = 1 - int(mask[relaxed.slices].sum()) / voxels
        paths = np.concatenate(geodesics)
        paths = paths[np.all((paths >= 0) & (paths < mask.shape), axis=1)]
        geodesics_covered = float(mask[tuple(paths.T)].mean()) if len(paths) else 0.0
        part = _part_in(mask, relaxed)
        overlap = 0.0 if part is None else _overlap(part, tight)
        return cls(overlap, geodesics_covered, _faces(mask[tight.relaxed(0, mask.shape).slices]), outside)


def _faces(mask: np.ndarray) -> float:
    """Return the mean share of the faces of an array (X, Y, Z) bool that is True."""
    if mask.size == 0:
        return 0.0
    return float(np.mean([np.take(mask, end, axis).mean() for axis in range(3) for end in (0, -1)]))


def _part_in(mask: np.ndarray, relaxed: Box) -> Box | None:
    """Return the tight box of the components of a mask that intersect a box; others say nothing about the ends."""
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
