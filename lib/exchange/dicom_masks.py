"""Map the structures in DICOM segmentations and structure sets to voxels by physical position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from skimage.measure import grid_points_in_poly

from lib.exchange.dicom_objects import Plane
from lib.geometry.image_geometry import GRID_TOLERANCE_VOXELS, ImageGeometry
from lib.geometry.volume import check_size

_FRACTIONAL = 0.5
_ROUNDING_DIGITS = 3
"""Decimals of contours in voxels, so that contours through the middles of voxels are exact."""


def segment_voxels(dataset: Dataset, geometry: ImageGeometry) -> dict[str, np.ndarray]:
    """Return the voxels (N, 3) int of each segment of a DICOM SEG that is not empty, by its label.

    Voxels of a fractional segmentation have a value of at least one half.

    Args:
        geometry: of the image.

    Raises:
        ValueError: two segments with one label, or pixels that are not voxels of the image.
        VolumeError: it is too large.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frame_groups = dataset.PerFrameFunctionalGroupsSequence
    check_size((columns, rows, len(frame_groups)), "The segmentation", 2)
    frames = dataset.pixel_array.reshape(-1, rows, columns)
    threshold = 1.0
    if dataset.get("SegmentationType") == "FRACTIONAL":
        threshold = _FRACTIONAL * float(dataset.get("MaximumFractionalValue", 255))
    names = {int(segment.SegmentNumber): str(segment.SegmentLabel).strip() for segment in dataset.SegmentSequence}
    _require_different(list(names.values()), "segments")
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for pixels, groups in zip(frames, frame_groups, strict=True):
        of_row, of_column = np.nonzero(pixels >= threshold)
        if len(of_row):
            identified = (groups.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence)[0]
            lps_mm = Plane.of(groups, shared).to_lps(of_column, of_row)
            found[names[int(identified.ReferencedSegmentNumber)]].append(_voxels_at(lps_mm, geometry))
    return {name: np.unique(np.concatenate(voxels), axis=0) for name, voxels in found.items()}


def contour_voxels(dataset: Dataset, geometry: ImageGeometry) -> dict[str, np.ndarray]:
    """Return the voxels (N, 3) int of each structure of an RTSTRUCT that has contours, by its name.

    A closed contour contains the voxels whose middle is inside or on it. Contours within others of the same slice are
    holes. Slices between contours are not filled.

    Args:
        geometry: of the image.

    Raises:
        ValueError: two structures with one name, contours that are not closed, or contours in no slice of the image.
    """
    names = {int(roi.ROINumber): str(roi.get("ROIName", "")).strip() for roi in dataset.StructureSetROISequence}
    _require_different(list(names.values()), "structures")
    found = {}
    for roi in dataset.get("ROIContourSequence") or []:
        name = names[int(roi.ReferencedROINumber)]
        slices: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
        for contour in roi.get("ContourSequence") or []:
            if not str(contour.ContourGeometricType).startswith("CLOSED_PLANAR"):
                raise ValueError(
                    f"{name!r} has a contour of type {contour.ContourGeometricType}; expected CLOSED_PLANAR."
                )
            points_lps_mm = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            points_voxel = np.round(geometry.lps_to_voxel(points_lps_mm), _ROUNDING_DIGITS)
            slices[_slice_of(points_voxel, geometry, name)].append(points_voxel)
        if slices:
            found[name] = np.concatenate([v for place, contours in slices.items() for v in _filled(place, contours)])
    return found


def _voxels_at(lps_mm: np.ndarray, geometry: ImageGeometry) -> np.ndarray:
    """Convert LPS mm (N, 3) to voxels (N, 3).

    Raises:
        ValueError: a point is between voxels or outside the image.
    """
    exact = geometry.lps_to_voxel(lps_mm)
    voxels = np.rint(exact).astype(np.int64)
    if not geometry.contains(voxels).all():
        raise ValueError("part of it lies outside of the image; name another with --image.")
    apart = float(np.abs(exact - voxels).max())
    if apart > GRID_TOLERANCE_VOXELS:
        raise ValueError(f"its pixels lie up to {apart:.2f} voxels off those of the image; resample it to the image.")
    return voxels


def _slice_of(points_voxel: np.ndarray, geometry: ImageGeometry, name: str) -> tuple[int, int]:
    """Return the axis normal to a contour (N, 3), and the index of its slice along it.

    Raises:
        ValueError: the contour is in no slice of the image.
    """
    spread = np.ptp(points_voxel, axis=0)
    axis = int(spread.argmin())
    index = round(float(points_voxel[:, axis].mean()))
    if np.abs(points_voxel[:, axis] - index).max() > GRID_TOLERANCE_VOXELS:
        raise ValueError(f"a contour of {name!r} lies in no slice of the image; resample the structures to the image.")
    low, high = points_voxel.min(axis=0), points_voxel.max(axis=0) - geometry.shape
    if (low < -0.5 - GRID_TOLERANCE_VOXELS).any() or (high > -0.5 + GRID_TOLERANCE_VOXELS).any():
        raise ValueError(f"a contour of {name!r} lies outside of the image; name another with --image.")
    return axis, index


def _filled(place: tuple[int, int], contours: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the voxels (N, 3) of the contours (n, 3) of a slice."""
    axis, index = place
    others = [a for a in range(3) if a != axis]
    flat = [contour[:, others] for contour in contours]
    low = np.floor(np.min([c.min(axis=0) for c in flat], axis=0)).astype(int)
    high = np.ceil(np.max([c.max(axis=0) for c in flat], axis=0)).astype(int)
    shape = (int(high[0] - low[0]) + 1, int(high[1] - low[1]) + 1)
    inside, on_border = np.zeros(shape, bool), np.zeros(shape, bool)
    for contour in flat:
        place_of = grid_points_in_poly(shape, contour - low, binarize=False)  # 1 inside, 2 and 3 on it
        inside ^= place_of == 1
        on_border |= place_of > 1
    found = np.argwhere(inside | on_border) + low
    yield np.insert(found, axis, index, axis=1).astype(np.int64)


def _require_different(names: list[str], what: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two {what} are named {twice!r}; rename one of them.")
