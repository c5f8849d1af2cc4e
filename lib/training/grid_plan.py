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
"""Percentile of the extents of structures for which the grid is chosen."""

SMALL_CHANGE = 1.25
"""Minimum factor by which a grid is made coarser; a smaller one would blur the image for little gain."""


def plan_spacing(
    scans: Sequence[AnnotatedScan], structures: Sequence[StructureExtremes], h: Hyperparameters
) -> Spacing:
    """Plan the spacing in mm along right, anterior, superior: the median of the scans, at least `min_spacing_mm`.

    A patch must show a structure and its surroundings, or the network cannot distinguish them. The grid is therefore
    so coarse that a patch extends over `patch_context` times the extent of a large structure.

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
    """Plan the voxels of a patch: `roi_size`, shorter along axes along which scans are shorter, longer along others.

    Parts of a patch outside the scan waste time. With `patch_context` 0, the size is `roi_size`.

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
