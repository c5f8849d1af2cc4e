"""Label sets: which classes each voxel of a patch may be, after what annotators said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lib.annotations.extreme_points import ExtremePoints


@dataclass(frozen=True, eq=False)
class StructureSupervision:
    """What is known of one structure in a patch, in voxels of the patch.

    Attributes:
        label_index: 1, 2, ...
        points: its clicks; they may lie outside the patch.
        box: (X, Y, Z) bool, inside its relaxed box.
        geodesics: (n, 3) int paths between opposite extreme points, inside the patch.
    """

    label_index: int
    points: ExtremePoints
    box: torch.Tensor
    geodesics: Sequence[np.ndarray]


def label_sets_of_clicks(
    shape: Sequence[int], label_count: int, structures: Sequence[StructureSupervision], absent: Iterable[int] = ()
) -> torch.Tensor:
    """(1 + C, X, Y, Z) bool: class c, 0 the background, is possible (paper, Section 3.1 and Eq. 3).

    Outside of the relaxed box of a structure its label is not possible, whatever the others are; a label without
    clicks may be anywhere (the label-set, or marginal, supervision of Fidon et al., BrainLes 2021, and Shi et al.,
    MedIA 2021). Geodesics are foreground. A voxel on geodesics of two labels is neither's, for one of the two paths
    left its structure. A click settles what it is on; a background click says "not this label" and no more.

    Args:
        label_count: C.
        absent: indices of labels that are not in the scan.
    """
    possible = torch.ones((1 + label_count, *shape), dtype=torch.bool)
    for index in absent:
        possible[index] = False
    for structure in structures:
        possible[structure.label_index] &= structure.box
        inside = _inside(structure.points.background_voxel, shape)
        possible[structure.label_index][inside] = False
    without_paths = possible.clone()
    claims = torch.zeros(tuple(shape), dtype=torch.int64)
    for structure in structures:
        visited = torch.zeros(tuple(shape), dtype=torch.bool)
        visited[_inside(np.concatenate(structure.geodesics), shape)] = True
        visited[_inside(structure.points.background_voxel, shape)] = False
        possible[:, visited] = False
        possible[structure.label_index, visited] = True
        claims += visited
    contested = claims > 1
    possible[:, contested] = without_paths[:, contested]
    for structure in structures:
        clicked = _inside(structure.points.foreground_voxel, shape)
        possible[(slice(None), *clicked)] = False
        possible[(structure.label_index, *clicked)] = True
    return possible


def label_sets_of_mask(mask: torch.Tensor, label_count: int, covered: Iterable[int]) -> torch.Tensor:
    """(1 + C, X, Y, Z) bool: what is possible by a mask.

    Args:
        mask: (X, Y, Z) label indices, of an integer type.
        covered: indices of labels that the mask shows wherever they are; the others may be where it is 0.
    """
    possible = torch.ones((1 + label_count, *mask.shape), dtype=torch.bool)
    for index in covered:
        possible[index] = False
    drawn = mask > 0
    possible[:, drawn] = False
    possible.scatter_(0, mask[None].long(), True)
    return possible


def narrowed(possible: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Both label sets at once, (1 + C, X, Y, Z) bool; `by` alone where they contradict each other."""
    both = possible & by
    return torch.where(both.any(dim=0), both, by)


def _inside(points_voxel: np.ndarray, shape: Sequence[int]) -> tuple[Any, ...]:
    """The points (N, 3) that lie in the patch, as an index."""
    inside = np.all((points_voxel >= 0) & (points_voxel < np.array(shape)), axis=1)
    return tuple(torch.from_numpy(np.ascontiguousarray(points_voxel[inside].T, dtype=np.int64)))
