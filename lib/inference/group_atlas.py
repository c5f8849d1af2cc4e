"""Make a shape atlas from clicks alone: segment many scans repeatedly with their own mean shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.box_frame import BoxFrame
from lib.clickmask.click_mask import segment_from_clicks
from lib.clickmask.context_box import context_box
from lib.clickmask.shape_atlas import GENERIC_COUNT, Shape, ShapeAtlas, likeness
from lib.geometry.image_geometry import Spacing
from lib.geometry.volume import Volume
from lib.inference.click_label_map import seen_from

MIN_STRUCTURES, MAX_STRUCTURES = 5, 24
"""Fewer are not reliable; more cost time."""

MIN_LIKENESS = 1.3
"""From this `likeness` on, structures have a shape in common: 4 hippocampi had 1.5 to 3.3, 4 sarcomas 0.9 to 1.25."""

ROUNDS = 5
"""After which masks hardly change."""

COUNT = 4.0
"""Accepted masks that all masks of clicks together count for."""


@dataclass(frozen=True, eq=False)
class ClickedStructure:
    """Clicks on a structure, and what surrounds it in the scan.

    Attributes:
        image: (X, Y, Z), a part of the scan.
        points: in voxels of that part.
        spacing_mm, affine_ras: of the scan.
    """

    image: np.ndarray
    points: ExtremePoints
    spacing_mm: Spacing
    affine_ras: np.ndarray

    @classmethod
    def of(cls, scan: Volume, points: ExtremePoints) -> ClickedStructure:
        """The scan (X, Y, Z) may be memory-mapped; only what surrounds the clicks is kept."""
        box = context_box(points, scan.geometry.shape)
        image = np.array(scan.array[box.slices])
        return cls(image, seen_from(points, box), scan.geometry.spacing_mm, scan.geometry.affine_ras)

    @property
    def extremes(self) -> np.ndarray:
        """(3, 2, 3) positions in the frame of its box."""
        return frame_extremes(self.points, self.affine_ras)

    def shape(self, atlas: ShapeAtlas | None) -> Shape:
        """The shape of the mask of its clicks."""
        mask = segment_from_clicks(self.image, self.points, self.spacing_mm, atlas=atlas, affine_ras=self.affine_ras)
        return Shape.of(mask, self.points.extremes_voxel, self.affine_ras)


def frame_extremes(points: ExtremePoints, affine_ras: np.ndarray) -> np.ndarray:
    """(3, 2, 3) positions of extreme points in the frame of their box, in an image with an affine (4, 4)."""
    return BoxFrame.around(points.extremes_voxel, affine_ras).extremes(points.extremes_voxel)


def have_shape_in_common(extremes: Sequence[np.ndarray]) -> bool:
    """Are there enough structures, with a common shape by their extreme points (3, 2, 3) in their frames?"""
    return len(extremes) >= MIN_STRUCTURES and likeness(extremes) >= MIN_LIKENESS


def group_atlas(structures: Sequence[ClickedStructure]) -> ShapeAtlas | None:
    """The mean mask of structures of one label, each made with the mean of the others, a few times.

    Returns:
        None where there are too few structures, or no common shape: the masks would get worse.
    """
    chosen = structures[-MAX_STRUCTURES:]
    if not have_shape_in_common([of.extremes for of in chosen]):
        return None
    shapes = [structure.shape(None) for structure in chosen]
    for _ in range(ROUNDS - 1):
        shapes = [
            structure.shape(_mean([shape for m, shape in enumerate(shapes) if m != n]))
            for n, structure in enumerate(chosen)
        ]
    return _mean(shapes)


def _mean(shapes: Sequence[Shape]) -> ShapeAtlas:
    """Counts as few accepted masks do, however many shapes there are: masks of clicks share their errors."""
    return ShapeAtlas.mean_of(shapes, COUNT / GENERIC_COUNT)
