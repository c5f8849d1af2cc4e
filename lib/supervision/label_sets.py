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
    """Clicks on one structure in a patch, in voxels of the patch.

    Attributes:
        label_index: 1, 2, ...
        points: clicks, inside or outside the patch.
        box: (X, Y, Z) bool, True inside the relaxed box.
        geodesics: (n, 3) int paths between opposite extreme points, inside the patch.
    """

    label_index: int
    points: ExtremePoints
    box: torch.Tensor
    geodesics: Sequence[np.ndarray]


def label_sets_of_clicks(
    shape: Sequence[int], label_count: int, structures: Sequence[StructureSupervision], absent: Iterable[int] = ()
) -> torch.Tensor:
    """Make the label sets of a patch from clicks (paper, Section 3.1, Eq. 3).

    A label is excluded outside the relaxed box of its structure; a label without clicks is excluded nowhere (label-set,
    or marginal, supervision: Fidon et al., MICCAI 2021; Shi et al., MedIA 2021). A voxel on a geodesic has the label of
    that geodesic only. Where geodesics of two labels overlap, one of them has left its structure, and both are
    ignored. A clicked voxel has its label only; a background click excludes that label only.

    Args:
        shape: (X, Y, Z) of the patch.
        label_count: C.
        absent: indices of labels that are not in the scan.

    Returns:
        (1 + C, X, Y, Z) bool: True where a voxel may be of class c; class 0 is the background.
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
    """Make the label sets (1 + C, X, Y, Z) bool of a mask.

    Args:
        mask: (X, Y, Z) label indices, of an integer type.
        label_count: C.
        covered: indices of the labels that the mask covers; the other labels stay possible where the mask is 0.
    """
    label_sets = torch.ones((1 + label_count, *mask.shape), dtype=torch.bool)
    for index in covered:
        label_sets[index] = False
    drawn = mask > 0
    label_sets[:, drawn] = False
    label_sets.scatter_(0, mask[None].long(), True)
    return label_sets


def intersection(label_sets: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Intersect label sets (1 + C, X, Y, Z) bool; voxels with an empty intersection get those of `by`."""
    both = label_sets & by
    return torch.where(both.any(dim=0), both, by)


def _inside(points_voxel: np.ndarray, shape: Sequence[int]) -> tuple[Any, ...]:
    """Return the points (N, 3) inside the patch as an index."""
    inside = np.all((points_voxel >= 0) & (points_voxel < np.array(shape)), axis=1)
    return tuple(torch.from_numpy(np.ascontiguousarray(points_voxel[inside].T, dtype=np.int64)))
