"""Choose the grid of an untrained network, and the size of patches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lib.data.annotated_scan import AnnotatedScan
from lib.data.grid import grid_shape
from lib.data.patch_map import Size
from lib.geometry.image_geometry import Spacing
from lib.geometry.volume import read_geometry
from lib.training.hyperparameters import Hyperparameters
from lib.training.structures import StructureExtremes

LARGE_PERCENTILE = 75
"""Of the extents of structures: so many are at most as large as what the grid is chosen for."""

SMALL_CHANGE = 1.25
"""A grid is not made coarser by less than this factor, which would blur it for little."""


def plan_spacing(
    scans: Sequence[AnnotatedScan], structures: Sequence[StructureExtremes], h: Hyperparameters
) -> Spacing:
    """Spacing in mm along right, anterior, superior: the median of the scans, but not finer than is asked for.

    A patch has to show a structure and what is around it, or the network cannot tell its inside from its surroundings.
    So the grid is so coarse that a patch reaches over `patch_context` times the extent of a large structure.

    Raises:
        VolumeError: a scan cannot be read.
    """
    spacings_mm = [read_geometry(scan.image_path).canonical_spacing_mm for scan in scans]
    finest = np.maximum(np.median(spacings_mm, axis=0), h.min_spacing_mm)
    if structures and h.patch_context > 0:
        extents = [structure.extent_mm for structure in structures]
        needed = h.patch_context * np.percentile(extents, LARGE_PERCENTILE, axis=0) / h.roi_size
        finest = np.where(needed > SMALL_CHANGE * finest, needed, finest)
    right, anterior, superior = finest.round(4).tolist()
    return right, anterior, superior


def plan_patch(scans: Sequence[AnnotatedScan], spacing_mm: Spacing, h: Hyperparameters) -> Size:
    """Voxels of a patch: those that are asked for, taken from axes along which scans are shorter to the others.

    A patch that reaches beyond its scan costs time for nothing. Without `patch_context` the size stays as it is.

    Raises:
        VolumeError: a scan cannot be read.
    """
    if h.patch_context == 0:
        return h.roi_size
    shapes = [grid_shape(read_geometry(scan.image_path), spacing_mm) for scan in scans]
    longest = np.percentile(shapes, LARGE_PERCENTILE, axis=0)
    size, voxels = np.minimum(h.roi_size, longest), float(np.prod(h.roi_size))
    for _ in range(3):
        growing = size < longest
        if growing.any():
            factor = (voxels / size.prod()) ** (1 / growing.sum())
            size = np.where(growing, np.minimum(size * factor, longest), size)
    i, j, k = (max(8, math.ceil(length)) for length in size)
    return i, j, k
