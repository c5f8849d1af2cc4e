"""Find the axes along which scans may be mirrored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lib.data.augmentation import Axes
from lib.training.structures import StructureExtremes

FEWEST_STRUCTURES = 4
"""Of a label, to tell anything."""

ORIENTED_SHARE = 0.25
"""From this share of what differs from its mirror image on, structures have an orientation in common."""

OFF_CENTRE = 0.15
"""Of half a scan: structures that lie nearer to its middle in the mean are in the middle."""


def symmetric_axes(structures: Sequence[StructureExtremes]) -> Axes:
    """Of right, anterior, superior: could each structure as well be the mirror image of one?

    Tumours could: their scans may be mirrored, which makes more of few. An organ could not, and a network that is shown
    mirrored ones has to learn twice as much. Six ends tell it: where they lie in the box of the structure, and the
    structure in its scan, must on average over the scans be as in the mirror. With d the difference of a structure from
    its mirror image, (n |mean d|^2 / mean |d|^2 - 1) / (n - 1) is the share that is common to all, less what chance
    gives.

    Returns:
        False along an axis with such an orientation, and along all where a label has too few structures to tell.
    """
    of_label: dict[int, list[StructureExtremes]] = defaultdict(list)
    for structure in structures:
        of_label[structure.label].append(structure)
    if not of_label or min(map(len, of_label.values())) < FEWEST_STRUCTURES:
        return False, False, False
    right, anterior, superior = (not any(_is_oriented(group, axis) for group in of_label.values()) for axis in range(3))
    return right, anterior, superior


def _is_oriented(structures: Sequence[StructureExtremes], axis: int) -> bool:
    shapes = np.array([_asymmetry(structure, axis) for structure in structures])
    places = np.array([_place(structure, axis) for structure in structures])[:, None]
    is_off_centre = abs(places.mean()) > OFF_CENTRE
    return _common_share(shapes) > ORIENTED_SHARE or bool(is_off_centre and _common_share(places) > ORIENTED_SHARE)


def _common_share(differences: np.ndarray) -> float:
    """Of n differences (n, d)."""
    n, mean_square = len(differences), np.square(differences).sum(axis=1).mean()
    if mean_square == 0:
        return 0.0
    return float((n * np.square(differences.mean(axis=0)).sum() / mean_square - 1) / (n - 1))


def _asymmetry(structure: StructureExtremes, axis: int) -> np.ndarray:
    """(18,): the ends in the box of the structure, from -1 to 1, less those of its mirror image."""
    ends = structure.ends_voxel
    low, high = np.diagonal(ends[:, 0]), np.diagonal(ends[:, 1])
    in_box = (2 * ends - low - high) / np.maximum(high - low, 1)
    mirrored = in_box.copy()
    mirrored[..., axis] *= -1
    mirrored[axis] = mirrored[axis, ::-1]
    return (in_box - mirrored).ravel()


def _place(structure: StructureExtremes, axis: int) -> float:
    """The middle of a structure in its scan, from -1 to 1."""
    last = max(1, int(structure.scan_shape[axis]) - 1)
    return float(structure.ends_voxel[axis, :, axis].mean() / last * 2 - 1)
