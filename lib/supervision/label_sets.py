"""Make the label set of each voxel of a patch: the classes that the annotations leave open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lib.annotations.extreme_points import ExtremePoints


@dataclass(frozen=True, eq=False)
class StructureSupervision:
    """The clicks on one structure in a patch, in voxels of the patch.

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
    """(1 + C, X, Y, Z) bool: is class c, 0 the background, in the label set of a voxel (paper, Section 3.1, Eq. 3)?

    A label is excluded outside the relaxed box of its structure; a label without clicks is excluded nowhere (label-set,
    or marginal, supervision: Fidon et al., MICCAI 2021; Shi et al., MedIA 2021). A voxel on a geodesic is of that
    label. Where geodesics of two labels overlap, one of them has left its structure, and the voxel is of neither by
    its geodesics. A clicked voxel is of that label; a background click excludes that label only.

    Args:
        label_count: C.
        absent: indices of labels that are not in the scan.
    """
    label_sets = torch.ones((1 + label_count, *shape), dtype=torch.bool)
    for index in absent:
        label_sets[index] = False
    for structure in structures:
        label_sets[structure.label_index] &= structure.box
        inside = _inside(structure.points.background_voxel, shape)
        label_sets[structure.label_index][inside] = False
    without_paths = label_sets.clone()
    path_count = torch.zeros(tuple(shape), dtype=torch.int64)
    for structure in structures:
        visited = torch.zeros(tuple(shape), dtype=torch.bool)
        visited[_inside(np.concatenate(structure.geodesics), shape)] = True
        visited[_inside(structure.points.background_voxel, shape)] = False
        label_sets[:, visited] = False
        label_sets[structure.label_index, visited] = True
        path_count += visited
    overlap = path_count > 1
    label_sets[:, overlap] = without_paths[:, overlap]
    for structure in structures:
        clicked = _inside(structure.points.foreground_voxel, shape)
        label_sets[(slice(None), *clicked)] = False
        label_sets[(structure.label_index, *clicked)] = True
    return label_sets


def label_sets_of_mask(mask: torch.Tensor, label_count: int, covered: Iterable[int]) -> torch.Tensor:
    """(1 + C, X, Y, Z) bool: the label sets by a mask.

    Args:
        mask: (X, Y, Z) label indices, of an integer type.
        covered: indices of the labels that the mask covers; the others stay in the label sets where it is 0.
    """
    label_sets = torch.ones((1 + label_count, *mask.shape), dtype=torch.bool)
    for index in covered:
        label_sets[index] = False
    drawn = mask > 0
    label_sets[:, drawn] = False
    label_sets.scatter_(0, mask[None].long(), True)
    return label_sets


def narrowed(label_sets: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """The intersection of label sets (1 + C, X, Y, Z) bool; `by` where it is empty."""
    both = label_sets & by
    return torch.where(both.any(dim=0), both, by)


def _inside(points_voxel: np.ndarray, shape: Sequence[int]) -> tuple[Any, ...]:
    """The points (N, 3) that lie in the patch, as an index."""
    inside = np.all((points_voxel >= 0) & (points_voxel < np.array(shape)), axis=1)
    return tuple(torch.from_numpy(np.ascontiguousarray(points_voxel[inside].T, dtype=np.int64)))
