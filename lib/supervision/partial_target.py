"""The partial label map: which voxels of a patch are known, and as what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.annotations.extreme_points import ExtremePoints

UNKNOWN = -1
BACKGROUND = 0


@dataclass(frozen=True, eq=False)
class StructureSupervision:
    """What is known of one structure in a patch, in voxels of the patch.

    Attributes:
        label_index: 1, 2, ...
        points: its clicks; they may lie outside the patch.
        geodesics: (n, 3) int paths between opposite extreme points, inside the patch.
    """

    label_index: int
    points: ExtremePoints
    geodesics: Sequence[np.ndarray]


def partial_target(
    possible: np.ndarray, structures: Sequence[StructureSupervision], *, all_labels_clicked: bool
) -> np.ndarray:
    """Label map (X, Y, Z) int64 with `UNKNOWN` where nothing is known (paper, Section 3.1 and Eq. 3).

    Background are the voxels outside the relaxed boxes of all structures, but only where every label of the
    app was clicked: a label without clicks may be anywhere. Geodesics are foreground. A voxel on geodesics
    of two labels is unknown, for one of the two paths left its structure; a click settles what it is on.

    Args:
        possible: (X, Y, Z) bool, inside the relaxed box of a structure (`relaxed_boxes`).
    """
    target = np.where(possible | (not all_labels_clicked), UNKNOWN, BACKGROUND).astype(np.int64)
    claims = np.zeros(target.shape, dtype=np.int8)
    for structure in structures:
        visited = np.zeros(target.shape, dtype=bool)
        visited[tuple(np.concatenate(structure.geodesics).T)] = True
        target[visited] = structure.label_index
        claims += visited
    target[claims > 1] = UNKNOWN
    for structure in structures:
        _mark(target, structure.points.background_voxel, BACKGROUND)
    for structure in structures:
        _mark(target, structure.points.foreground_voxel, structure.label_index)
    return target


def _mark(target: np.ndarray, points_voxel: np.ndarray, value: int) -> None:
    inside = np.all((points_voxel >= 0) & (points_voxel < np.array(target.shape)), axis=1)
    target[tuple(points_voxel[inside].T)] = value
