"""A DICOM series as one volume, or a sentence that says why it is none.

Viewers stack the slices of a series by their positions on an even grid at right angles, and send voxel indices of
that grid. ITK does the same and only warns where the slices do not lie on such a grid, so this is checked here, in
the headers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from lib.annotations.volume import VolumeError

# Headers are rounded; beyond this a click could reach the neighbour of the voxel under the mouse.
TOLERANCE_VOXELS = 0.1
_TOLERANCE_DIRECTION = 1e-3
_REMEDY = "Choose another series, or resample this one to an even grid at right angles."


class SeriesError(VolumeError):
    """A series that is not a volume on an even grid; its text is for the user."""


@dataclass(frozen=True, eq=False)
class SlicePlane:
    """Where one slice lies (DICOM PS3.3 C.7.6.2).

    Attributes:
        position_lps_mm: (3,) centre of its first voxel.
        directions: (2, 3) unit vectors in LPS along increasing column index and along increasing row index.
        spacing_mm: (2,) distance of neighbouring columns, and of neighbouring rows.
        size: columns and rows.
    """

    position_lps_mm: np.ndarray
    directions: np.ndarray
    spacing_mm: np.ndarray
    size: tuple[int, int]


def series_to_nifti(folder: Path, path: Path) -> None:
    """Writes the series in `folder`, one or more DICOM files, as NIfTI.

    Slices are ordered by position along the cross product of row and column direction, whatever their names and
    instance numbers.

    Raises:
        SeriesError: the files are not one volume on an even grid at right angles.
    """
    files, planes = _ordered_planes(folder)
    affine_lps = even_grid(planes)
    try:
        image = sitk.ReadImage(
            [str(file) for file in files] if len(files) > 1 else str(files[0]), imageIO="GDCMImageIO"
        )
    except RuntimeError as error:
        raise SeriesError(
            f"The pixels of the series cannot be read ({str(error).strip().splitlines()[-1]})."
        ) from error
    _check_read_as_expected(image, affine_lps, (*planes[0].size, len(planes)))
    sitk.WriteImage(image, str(path))


def even_grid(planes: list[SlicePlane]) -> np.ndarray:
    """The grid of slices in order.

    Returns:
        (4, 4) voxel index (column, row, slice) to LPS mm.

    Raises:
        SeriesError: fewer than two slices, or slices that are not parallel, differ in size, share a position, are
            unevenly spaced or shifted against each other in their own plane (gantry tilt).
    """
    _check_stackable(planes)
    first = planes[0]
    positions_mm = np.array([plane.position_lps_mm for plane in planes]) - first.position_lps_mm
    normal = np.cross(*first.directions)
    along_mm = positions_mm @ normal
    _check_even(along_mm)
    step_mm = along_mm[-1] / (len(planes) - 1)
    shift_voxels = positions_mm @ first.directions.T / first.spacing_mm
    if np.abs(shift_voxels).max() > TOLERANCE_VOXELS:
        shift_mm = np.abs(positions_mm @ first.directions.T).max()
        raise SeriesError(
            f"The slices of the series are shifted by up to {shift_mm:.1f} mm in their own plane, as with a tilted "
            f"gantry. {_REMEDY}"
        )
    affine_lps = np.eye(4)
    affine_lps[:3, :2] = first.directions.T * first.spacing_mm
    affine_lps[:3, 2] = normal * step_mm
    affine_lps[:3, 3] = first.position_lps_mm
    return affine_lps


def _check_stackable(planes: list[SlicePlane]) -> None:
    if len(planes) < 2:
        raise SeriesError(f"The series has {len(planes)} slice; expected a volume of several.")
    first = planes[0]
    for plane in planes[1:]:
        if np.abs(plane.directions - first.directions).max() > _TOLERANCE_DIRECTION:
            raise SeriesError("The slices of the series are not parallel, as those of a localizer. Choose another.")
        if plane.size != first.size or not np.allclose(plane.spacing_mm, first.spacing_mm, rtol=1e-4):
            raise SeriesError("The slices of the series differ in size or pixel spacing. Choose another.")


def _check_even(along_mm: np.ndarray) -> None:
    """Positions (N,) of ordered slices along their normal."""
    gaps_mm = np.diff(along_mm)
    if gaps_mm.min() < 1e-3:
        count = int(np.sum(gaps_mm < 1e-3))
        raise SeriesError(
            f"The series has more than one slice at the same position, {count} in all, as a time series has; expected "
            "a single volume. Choose another."
        )
    step_mm = along_mm[-1] / len(gaps_mm)
    if np.abs(along_mm - step_mm * np.arange(len(along_mm))).max() > TOLERANCE_VOXELS * step_mm:
        raise SeriesError(
            f"The slices of the series are unevenly spaced, from {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm; slices "
            f"may be missing in the archive. {_REMEDY}"
        )


def _ordered_planes(folder: Path) -> tuple[list[Path], list[SlicePlane]]:
    """The files and the planes in them, in order of position."""
    headers = {path: _header(path) for path in sorted(folder.iterdir())}
    if len(headers) == 1:
        path, header = headers.popitem()
        planes = list(_planes_of_frames(header))
        if planes != sorted(planes, key=lambda plane: _along_normal(plane, planes[0])):
            raise SeriesError("The frames of the series are not in order of position. Store it as single slices.")
        return [path], planes
    if any(int(header.get("NumberOfFrames") or 1) > 1 for header in headers.values()):
        raise SeriesError("The series has several files of many frames; expected one file, or one for each slice.")
    planes_by_path = {path: _plane(header) for path, header in headers.items()}
    reference = next(iter(planes_by_path.values()), None)
    if reference is None:
        raise SeriesError("The series is empty.")
    files = sorted(planes_by_path, key=lambda path: _along_normal(planes_by_path[path], reference))
    return files, [planes_by_path[path] for path in files]


def _along_normal(plane: SlicePlane, reference: SlicePlane) -> float:
    return float(plane.position_lps_mm @ np.cross(*reference.directions))


def _header(path: Path) -> Dataset:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError, EOFError) as error:
        raise SeriesError(f"The series holds a file that is no DICOM image ({error}).") from error
    if header.get("SamplesPerPixel", 1) != 1:
        raise SeriesError("The series holds colour images; expected intensities of one channel. Choose another.")
    return header


def _plane(header: Dataset) -> SlicePlane:
    return _plane_of(header, header, header, header)


def _planes_of_frames(header: Dataset) -> Iterator[SlicePlane]:
    """The planes of a file: one, or those of its frames (DICOM PS3.3 C.7.6.16)."""
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        yield _plane(header)
        return
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for frame in frames:
        position, orientation, measures = (
            (frame.get(name) or shared.get(name) or [Dataset()])[0]
            for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        )
        yield _plane_of(header, position, orientation, measures)


def _plane_of(header: Dataset, position: Dataset, orientation: Dataset, measures: Dataset) -> SlicePlane:
    try:
        row_mm, column_mm = (float(number) for number in measures.PixelSpacing)
        return SlicePlane(
            np.array([float(number) for number in position.ImagePositionPatient]),
            np.array([float(number) for number in orientation.ImageOrientationPatient]).reshape(2, 3),
            np.array([column_mm, row_mm]),
            (int(header.Columns), int(header.Rows)),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise SeriesError(
            "The series does not say where its slices lie in the patient (position, orientation, pixel spacing). "
            "Choose another."
        ) from error


def _check_read_as_expected(image: sitk.Image, affine_lps: np.ndarray, shape: tuple[int, int, int]) -> None:
    """The reader orders and spaces slices by rules of its own; a mask may go back only where the header says."""
    if image.GetSize() != shape:
        size = " x ".join(map(str, image.GetSize()))
        raise SeriesError(f"The series was read as {size} voxels; its headers tell of {' x '.join(map(str, shape))}.")
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape])).reshape(3, -1).T
    read_mm = np.array([image.TransformIndexToPhysicalPoint(corner.tolist()) for corner in corners])
    told_mm = corners @ affine_lps[:3, :3].T + affine_lps[:3, 3]
    off_mm = np.linalg.norm(read_mm - told_mm, axis=1).max()
    if off_mm > TOLERANCE_VOXELS * min(image.GetSpacing()):
        raise SeriesError(f"The series was read {off_mm:.2f} mm off the place that its headers tell. {_REMEDY}")


def is_fetched(folder: Path) -> bool:
    """Does the folder hold a series?"""
    return folder.is_dir() and any(os.scandir(folder))
