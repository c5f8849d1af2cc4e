"""Find the axes along which scans may be mirrored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lib.data.augmentation import Axes
from lib.training.structures import StructureExtremes

MIN_STRUCTURES = 4
"""Minimum number of structures of each label to decide on symmetry."""

ORIENTED_SHARE = 0.25
"""Share of the difference from the mirror image, common to all structures, above which they have an orientation."""

OFF_CENTRE = 0.15
"""Mean distance from the middle of the scan, as a share of half a scan, up to which structures are central."""


def symmetric_axes(structures: Sequence[StructureExtremes]) -> Axes:
    """Find along which of right, anterior, superior structures have no common orientation.

    Scans of structures without orientation, such as tumours, may be mirrored, which augments the data. A network that
    sees mirrored organs would have to learn two shapes instead of one. The test uses the positions of the six ends in
    the box of the structure, and the position of the structure in its scan. With d the difference of a structure from
    its mirror image, (n |mean d|^2 / mean |d|^2 - 1) / (n - 1) is the share of d that is common to all n structures,
    corrected for chance.

    Returns:
        False along an axis with such an orientation, and along all axes if a label has fewer than `MIN_STRUCTURES`.
    """
    of_label: dict[int, list[StructureExtremes]] = defaultdict(list)
    for structure in structures:
        of_label[structure.label].append(structure)
    if not of_label or min(map(len, of_label.values())) < MIN_STRUCTURES:
        return False, False, False
    right, anterior, superior = (not any(_is_oriented(group, axis) for group in of_label.values()) for axis in range(3))
    return right, anterior, superior


def _is_oriented(structures: Sequence[StructureExtremes], axis: int) -> bool:
    shapes = np.array([_asymmetry(structure, axis) for structure in structures])
    places = np.array([_place(structure, axis) for structure in structures])[:, None]
    is_off_centre = abs(places.mean()) > OFF_CENTRE
    return _common_share(shapes) > ORIENTED_SHARE or bool(is_off_centre and _common_share(places) > ORIENTED_SHARE)


def _common_share(differences: np.ndarray) -> float:
    """Return the share of n differences (n, d) that is common to all, corrected for chance."""
    n, mean_square = len(differences), np.square(differences).sum(axis=1).mean()
    if mean_square == 0:
        return 0.0
    return float((n * np.square(differences.mean(axis=0)).sum() / mean_square - 1) / (n - 1))


def _asymmetry(structure: StructureExtremes, axis: int) -> np.ndarray:
    """Return the ends (18,) in the box of the structure, from -1 to 1, minus those of its mirror image."""
    ends = structure.ends_voxel
    low, high = np.diagonal(ends[:, 0]), np.diagonal(ends[:, 1])
    in_box = (2 * ends - low - high) / np.maximum(high - low, 1)
    mirrored = in_box.copy()
    mirrored[..., axis] *= -1
    mirrored[axis] = mirrored[axis, ::-1]
    return (in_box - mirrored).ravel()


def _place(structure: StructureExtremes, axis: int) -> float:
    """Return the position of the middle of a structure in its scan, from -1 to 1."""
    last = max(1, int(structure.scan_shape[axis]) - 1)
    return float(structure.ends_voxel[axis, :, axis].mean() / last * 2 - 1)
