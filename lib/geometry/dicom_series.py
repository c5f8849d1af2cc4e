"""A DICOM series as one volume, or a sentence that says why it is none.

Viewers stack the slices of a series by their positions on an even grid at right angles, and send voxel indices of
that grid. ITK does the same and only warns where the slices do not lie on such a grid, so this is checked here, in
the headers.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixel_data_handlers.util import apply_modality_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from lib.geometry.image_geometry import DIRECTION_TOLERANCE, GRID_TOLERANCE_VOXELS, RAS_TO_LPS
from lib.geometry.volume import VolumeError, check_size, shown_name
from lib.geometry.volume_size import GB, max_volume_gb

logger = logging.getLogger(__name__)

_UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_PIXEL_TAG_BYTES = 8  # or 12, before the pixels
_INFLATED_PIECE_BYTES = 2**20
_RESCALING = {
    "ModalityLUTSequence",
    "PixelValueTransformationSequence",
    "RealWorldValueMappingSequence",
    "RescaleIntercept",
    "RescaleSlope",
}
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


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice of the series: a file, or one of the frames of a file.

    Attributes:
        number: its place in the file, from 0.
        stored_as: bits allocated, bits stored, and 1 with or 0 without a sign.
        slope, intercept: intensity = slope * stored number + intercept.
        table: what holds a ModalityLUTSequence, which then replaces the two (DICOM PS3.3 C.11.1).
    """

    plane: SlicePlane
    file: Path
    number: int
    stored_as: tuple[int, int, int]
    slope: float
    intercept: float
    table: Dataset | None

    def intensities(self, stored: np.ndarray) -> np.ndarray:
        """(rows, columns) stored numbers to (rows, columns) float64."""
        if self.table is not None:
            return apply_modality_lut(stored, self.table).astype(np.float64)
        return stored * np.float64(self.slope) + self.intercept


def series_to_nifti(folder: Path, path: Path) -> None:
    """Writes the series in `folder`, one or more DICOM files, as NIfTI.

    Slices are ordered by position along the cross product of row and column direction, whatever their names, their
    instance numbers and their places in a file. Where slices differ in how stored numbers become intensities, the
    volume is of float64.

    Raises:
        SeriesError: the files are not one volume on an even grid at right angles, are damaged, or are larger than
            the limit or the free memory.
        OSError: the volume cannot be written.
    """
    frames = _ordered_frames(folder)
    affine_lps = even_grid([frame.plane for frame in frames])
    same = _same_intensities(frames)
    _check_volume_size(frames, same)
    try:
        array = _read(frames) if same else _read_by_frame(frames)
    except Exception as error:  # damaged pixels fail as their decoder likes
        logger.warning("The pixels of a series cannot be read: %s", error)
        raise SeriesError(
            "The pixels of the series cannot be read: they are damaged, cut short or compressed in an unknown way. "
            "Send it to the archive anew, or choose another."
        ) from error
    columns, rows = frames[0].plane.size
    if array.shape != (len(frames), rows, columns):
        read, told = (" x ".join(map(str, shape)) for shape in (array.shape[::-1], (columns, rows, len(frames))))
        raise SeriesError(f"The series was read as {read} voxels; its headers tell of {told}.")
    image = nib.Nifti1Image(array.T, RAS_TO_LPS @ affine_lps)
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _same_intensities(frames: list[Frame]) -> bool:
    """Do equal numbers mean equal intensities in all frames? GDCM and ITK take it for granted."""
    rules = {(frame.slope, frame.intercept, frame.stored_as) for frame in frames}
    return len(rules) == 1 and all(frame.table is None for frame in frames)


def _check_volume_size(frames: list[Frame], same: bool) -> None:
    first = frames[0]
    whole = same and first.slope.is_integer() and first.intercept.is_integer()
    # At the peak there are what GDCM read, an array of it, and that array in order.
    bytes_per_voxel = 3 * (first.stored_as[0] // 8 if whole else 8)
    try:
        check_size((*first.plane.size, len(frames)), "The series", bytes_per_voxel)
    except VolumeError as error:
        raise SeriesError(str(error)) from error


def _read(frames: list[Frame]) -> np.ndarray:
    """Intensities (frames, rows, columns), as GDCM makes them of the stored numbers."""
    files = list(dict.fromkeys(frame.file for frame in frames))
    if len(files) > 1:
        return _decoded(files)
    return _decoded(files)[[frame.number for frame in frames]]


def _read_by_frame(frames: list[Frame]) -> np.ndarray:
    """Intensities (frames, rows, columns) float64, each frame by a rule of its own."""
    planes = []
    with tempfile.TemporaryDirectory() as folder:
        stored, copied = np.empty(0), None
        for frame in frames:
            if frame.file != copied:
                stored, copied = _decoded([_without_rescaling(frame.file, Path(folder, "copy.dcm"))]), frame.file
            planes.append(frame.intensities(stored[frame.number]))
    return np.stack(planes)


def _decoded(files: list[Path]) -> np.ndarray:
    """The frames (frames, rows, columns) of one file, or of several with one each."""
    names = [str(file) for file in files]
    image = sitk.ReadImage(names if len(names) > 1 else names[0], imageIO="GDCMImageIO")
    return sitk.GetArrayFromImage(image)


def _without_rescaling(file: Path, copy: Path) -> Path:
    """A copy of a file, of which GDCM reads the stored numbers."""

    def drop(dataset: Dataset, element: DataElement) -> None:
        if element.keyword in _RESCALING:
            del dataset[element.tag]

    dataset = pydicom.dcmread(file)
    dataset.walk(drop)
    dataset.save_as(copy)
    return copy


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
    if np.abs(shift_voxels).max() > GRID_TOLERANCE_VOXELS:
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
        if np.abs(plane.directions - first.directions).max() > DIRECTION_TOLERANCE:
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
    if np.abs(along_mm - step_mm * np.arange(len(along_mm))).max() > GRID_TOLERANCE_VOXELS * step_mm:
        raise SeriesError(
            f"The slices of the series are unevenly spaced, from {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm; slices "
            f"may be missing in the archive. {_REMEDY}"
        )


def _ordered_frames(folder: Path) -> list[Frame]:
    """The frames in order of position. Raises: SeriesError: a header is damaged, or of something else."""
    try:
        headers = {path: _header(path) for path in sorted(folder.iterdir())}
        if len(headers) > 1 and any(_frame_count(header) > 1 for header, _ in headers.values()):
            raise SeriesError("The series has several files of many frames; expected one file, or one for each slice.")
        for path, (header, left) in headers.items():
            _check_room(path, header, left)
        frames = [frame for path, (header, _) in headers.items() for frame in _frames(path, header)]
    except SeriesError:
        raise
    except Exception as error:  # a damaged header fails as the attribute likes
        logger.warning("The header of a series cannot be understood: %r", error)
        raise SeriesError(
            "The headers of the series cannot be understood; they may be damaged. Choose another."
        ) from error
    if not frames:
        raise SeriesError("The series is empty.")
    normal = np.cross(*frames[0].plane.directions)
    return sorted(frames, key=lambda frame: float(frame.plane.position_lps_mm @ normal))


def _header(path: Path) -> tuple[Dataset, int]:
    """What stands before the pixels, and the number of bytes from there to the end of the file."""
    try:
        with path.open("rb") as file:
            _check_inflated_size(file)
            header = pydicom.dcmread(file, stop_before_pixels=True)
            left = path.stat().st_size - file.tell()
    except (InvalidDicomError, OSError, EOFError) as error:
        raise SeriesError(f"The series holds a file that is no DICOM image ({shown_name(path)}).") from error
    if header.get("SamplesPerPixel", 1) != 1:
        raise SeriesError("The series holds colour images; expected intensities of one channel. Choose another.")
    return header, left


def _check_inflated_size(file: BinaryIO) -> None:
    """pydicom inflates a deflated file as a whole, whatever comes out of it."""
    read_preamble(file, force=False)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while piece := inflater.unconsumed_tail or file.read(_INFLATED_PIECE_BYTES):
            inflated += len(inflater.decompress(piece, _INFLATED_PIECE_BYTES))
            if inflated > max_volume_gb() * GB:
                raise SeriesError(f"A file of the series is larger than {max_volume_gb():g} GB. Choose another.")
    file.seek(0)


def _check_room(path: Path, header: Dataset, left: int) -> None:
    """Before memory is taken for what a header says. Of compressed pixels the limit alone is known."""
    rows, columns, count = int(header.Rows), int(header.Columns), _frame_count(header)
    if min(rows, columns, count) < 1:
        raise SeriesError(f"The series has {count} frames of {columns} x {rows} pixels; expected some of each.")
    expected = rows * columns * count * int(header.BitsAllocated) // 8
    # GDCM fills up what is cut short.
    if header.file_meta.get("TransferSyntaxUID") in _UNCOMPRESSED and left < expected + _PIXEL_TAG_BYTES:
        raise SeriesError(
            f"The file {shown_name(path)} of the series is cut short: its header tells of {expected} bytes of pixels, "
            f"and {max(0, left - _PIXEL_TAG_BYTES)} follow. Send it to the archive anew."
        )


def _frame_count(header: Dataset) -> int:
    count = header.get("NumberOfFrames")
    return 1 if count is None else int(count)


def _frames(path: Path, header: Dataset) -> Iterator[Frame]:
    """The frames of a file: one, or those of its functional groups (DICOM PS3.3 C.7.6.16)."""
    count, stored_as = _frame_count(header), _stored_as(header)
    groups = header.get("PerFrameFunctionalGroupsSequence") or [header]
    if len(groups) != count:
        raise SeriesError(f"The series has {count} frames, but places in the patient for {len(groups)}. {_REMEDY}")
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for number, frame in enumerate(groups):
        position, orientation, measures, rescaling = (
            (frame.get(name) or shared.get(name) or [header])[0]
            for name in (
                "PlanePositionSequence",
                "PlaneOrientationSequence",
                "PixelMeasuresSequence",
                "PixelValueTransformationSequence",
            )
        )
        plane = _plane_of(header, position, orientation, measures)
        slope, intercept = _number(rescaling, "RescaleSlope", 1.0), _number(rescaling, "RescaleIntercept", 0.0)
        table = header if header.get("ModalityLUTSequence") else None
        yield Frame(plane, path, number, stored_as, slope or 1.0, intercept, table)  # GDCM takes a slope of 0 for 1


def _stored_as(header: Dataset) -> tuple[int, int, int]:
    allocated, stored, signed = int(header.BitsAllocated), int(header.BitsStored), int(header.PixelRepresentation)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or signed not in (0, 1):
        raise SeriesError(
            f"The pixels of the series are of {stored} bits in {allocated}, PixelRepresentation {signed}; expected "
            "8, 16 or 32 bits, and 0 or 1. Choose another."
        )
    return allocated, stored, signed


def _number(dataset: Dataset, name: str, default: float) -> float:
    value = dataset.get(name)
    number = default if value is None else float(value)
    if not math.isfinite(number):
        raise SeriesError(f"The {name} of the series is {value}; expected a number. Choose another.")
    return number


def _plane_of(header: Dataset, position: Dataset, orientation: Dataset, measures: Dataset) -> SlicePlane:
    try:
        row_mm, column_mm = (float(number) for number in measures.PixelSpacing)
        position_lps_mm = np.array([float(number) for number in position.ImagePositionPatient]).reshape(3)
        directions = np.array([float(number) for number in orientation.ImageOrientationPatient]).reshape(2, 3)
        lengths = np.linalg.norm(directions, axis=1)
        if not np.isfinite(position_lps_mm).all() or not 0 < min(row_mm, column_mm) <= max(row_mm, column_mm) < np.inf:
            raise ValueError("no place")
        if not np.allclose(lengths, 1, rtol=0, atol=0.05):
            raise ValueError("no directions")
        directions /= lengths[:, None]
        if abs(directions[0] @ directions[1]) > DIRECTION_TOLERANCE:
            raise ValueError("no directions at right angles")
    except (AttributeError, TypeError, ValueError) as error:
        raise SeriesError(
            "The series does not say where its slices lie in the patient (position, orientation, pixel spacing). "
            "Choose another."
        ) from error
    return SlicePlane(
        position_lps_mm,
        directions,
        np.array([column_mm, row_mm]),
        (int(header.Columns), int(header.Rows)),
    )


def is_fetched(folder: Path) -> bool:
    """Does the folder hold a series?"""
    return folder.is_dir() and any(os.scandir(folder))
