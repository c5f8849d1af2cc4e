"""Measure the agreement of two readers on an image: Dice, and distances between the faces of their masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.geometry.boxes import Box
from lib.geometry.image_geometry import ImageGeometry
from lib.metrics import dice


@dataclass(frozen=True)
class Agreement:
    """Agreement of two masks of one label in one image.

    Attributes:
        dice: in [0, 1]; 1 if both masks are empty, 0 if one is.
        ends_mm: distance between their outermost faces, by anatomical direction ("left", "anterior", ...). All 0 if
            both masks are empty; no entries if one is.
    """

    dice: float
    ends_mm: dict[str, float]

    @property
    def largest_mm(self) -> float | None:
        """The largest of `ends_mm`; None without any."""
        return max(self.ends_mm.values(), default=None)

    @property
    def disagreement(self) -> tuple[float, float]:
        """Sort key, larger for pairs that disagree more: by Dice, then by millimetres."""
        largest_mm = self.largest_mm
        return 1 - self.dice, float("inf") if largest_mm is None else largest_mm


def agreement(one: np.ndarray, other: np.ndarray, geometry: ImageGeometry) -> Agreement:
    """Measure the agreement of two masks (X, Y, Z) bool on the grid of an image.

    The faces are those of the outermost voxels along the three axes of the image. Both masks lie on its grid, so
    corresponding faces are parallel planes, whose distance is a number of voxels times the spacing.
    """
    names, spacing_mm = geometry.end_names, geometry.spacing_mm
    boxes = [Box.of_mask(mask) for mask in (one, other)]
    if boxes[0] is None or boxes[1] is None:
        both = boxes[0] is boxes[1]
        return Agreement(float(both), {name: 0.0 for pair in names for name in pair} if both else {})
    apart_voxel = np.abs(np.subtract([boxes[0].start, boxes[0].stop], [boxes[1].start, boxes[1].stop]))
    ends_mm = {
        names[axis][end]: float(apart_voxel[end, axis] * spacing_mm[axis]) for axis in range(3) for end in range(2)
    }
    return Agreement(dice(one, other), ends_mm)


def label_agreements(
    one: np.ndarray, other: np.ndarray, labels: Sequence[str], geometry: ImageGeometry
) -> dict[str, Agreement]:
    """Measure the agreement on each label in two label maps (X, Y, Z) uint8, with values 1, 2, ... as in `labels`."""
    return {label: agreement(one == n, other == n, geometry) for n, label in enumerate(labels, start=1)}


def slices_of_largest_difference(maps: Sequence[np.ndarray]) -> tuple[int, int, int]:
    """Return the slice along each image axis in which label maps (X, Y, Z) differ in most voxels.

    Identical maps give the slice with most labelled voxels, and empty maps the middle of the image.
    """
    first, *others = maps
    counted = np.zeros(first.shape, bool)
    for other in others:
        counted |= other != first
    if not counted.any():
        counted = first != 0
    if not counted.any():
        x, y, z = (n // 2 for n in first.shape)
        return x, y, z
    x, y, z = (int(counted.sum(axis=axes).argmax()) for axes in ((1, 2), (0, 2), (0, 1)))
    return x, y, z
