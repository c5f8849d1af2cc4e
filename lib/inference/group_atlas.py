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
from lib.inference.click_label_map import clicks_in_box

MIN_STRUCTURES, MAX_STRUCTURES = 5, 24
"""Fewer are not reliable; more take too much time."""

MIN_LIKENESS = 1.3
"""Minimum `likeness` of structures with a common shape."""

ROUNDS = 5
"""Number of iterations; masks hardly change after them."""

COUNT = 4.0
"""Weight of all click masks together, as a number of accepted masks."""


@dataclass(frozen=True, eq=False)
class ClickedStructure:
    """Clicks on a structure, and its surroundings in the scan.

    Attributes:
        image: (X, Y, Z), crop of the scan.
        points: clicks in voxels of the crop.
        spacing_mm, affine_ras: of the scan.
    """

    image: np.ndarray
    points: ExtremePoints
    spacing_mm: Spacing
    affine_ras: np.ndarray

    @classmethod
    def of(cls, scan: Volume, points: ExtremePoints) -> ClickedStructure:
        """Crop a scan (X, Y, Z), which may be memory-mapped, to the surroundings of the clicks."""
        box = context_box(points, scan.geometry.shape)
        image = np.array(scan.array[box.slices])
        return cls(image, clicks_in_box(points, box), scan.geometry.spacing_mm, scan.geometry.affine_ras)

    @property
    def extremes(self) -> np.ndarray:
        """Positions (3, 2, 3) of the extreme points in the frame of their box."""
        return frame_extremes(self.points, self.affine_ras)

    def shape(self, atlas: ShapeAtlas | None) -> Shape:
        """Return the shape of the click mask."""
        mask = segment_from_clicks(self.image, self.points, self.spacing_mm, atlas=atlas, affine_ras=self.affine_ras)
        return Shape.of(mask, self.points.extremes_voxel, self.affine_ras)


def frame_extremes(points: ExtremePoints, affine_ras: np.ndarray) -> np.ndarray:
    """Return positions (3, 2, 3) of extreme points in the frame of their box, in an image with an affine (4, 4)."""
    return BoxFrame.around(points.extremes_voxel, affine_ras).extremes(points.extremes_voxel)


def have_shape_in_common(extremes: Sequence[np.ndarray]) -> bool:
    """Tell whether enough structures have a common shape, by their extreme points (3, 2, 3) in their frames."""
    return len(extremes) >= MIN_STRUCTURES and likeness(extremes) >= MIN_LIKENESS


def group_atlas(structures: Sequence[ClickedStructure]) -> ShapeAtlas | None:
    """Make the mean mask of structures of one label, iteratively: each mask is made with the mean of the others.

    Returns:
        None if there are too few structures, or no common shape: the masks would get worse.
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
    """Average shapes, with the weight of `COUNT` accepted masks: errors of click masks are correlated."""
    return ShapeAtlas.mean_of(shapes, COUNT / GENERIC_COUNT)
