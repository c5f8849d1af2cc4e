"""Locate the extreme points of annotated structures, from clicks or masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from lib.annotations.extreme_points import mask_extremes
from lib.data.annotated_scan import AnnotatedScan
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError, load_volume

MAX_MASKS = 24
"""Maximum number of masks to read, about a second each for a CT."""


@dataclass(frozen=True, eq=False)
class StructureExtremes:
    """Ends of a structure along right, anterior, superior, in voxels of its scan along these directions.

    Attributes:
        label: index 1, 2, ...
        ends_voxel: (3, 2, 3), low and high end of each axis. An end of a mask is the middle of its outermost slice.
        scan_shape: (3,) voxels of the scan.
        spacing_mm: (3,).
    """

    label: int
    ends_voxel: np.ndarray
    scan_shape: np.ndarray
    spacing_mm: np.ndarray

    @classmethod
    def of(cls, label: int, ends_voxel: np.ndarray, geometry: ImageGeometry) -> StructureExtremes:
        """Reorient ends (3, 2, 3) along the axes of an image, in its voxels."""
        axes, signs = nib.io_orientation(geometry.affine_ras).T
        order = np.argsort(axes)
        shape = np.array(geometry.shape)[order]
        ends = np.asarray(ends_voxel, dtype=float)[order][..., order]
        for axis in np.flatnonzero(signs[order] < 0):
            ends[..., axis] = shape[axis] - 1 - ends[..., axis]
            ends[axis] = ends[axis, ::-1]
        return cls(label, ends, shape, np.array(geometry.canonical_spacing_mm))

    @property
    def extent_mm(self) -> np.ndarray:
        """Extent (3,) in mm, between the centres of the first and the last voxel."""
        return np.diagonal(self.ends_voxel[:, 1] - self.ends_voxel[:, 0]) * self.spacing_mm


def structure_extremes(scans: Sequence[AnnotatedScan], labels: Sequence[str]) -> list[StructureExtremes]:
    """Locate all clicked structures, and those in masks of scans without clicks; skip masks that cannot be read."""
    index = {label: index for index, label in enumerate(labels, start=1)}
    clicked = [
        StructureExtremes.of(index[a.label], a.points.extremes_voxel, a.geometry)
        for scan in scans
        for a in scan.annotations
        if a.label in index
    ]
    masked = [scan for scan in scans if not scan.annotations and scan.mask_path is not None]
    return clicked + [ends for scan in masked[:MAX_MASKS] for ends in _of_mask(scan)]


def _of_mask(scan: AnnotatedScan) -> Iterator[StructureExtremes]:
    assert scan.mask_path is not None
    try:
        mask = load_volume(scan.mask_path, sentinels=False)
    except VolumeError:
        return
    labels = mask.array.astype(np.uint8)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            start = np.array([axis.start for axis in box])
            yield StructureExtremes.of(label, start + mask_extremes(labels[box] == label), mask.geometry)
