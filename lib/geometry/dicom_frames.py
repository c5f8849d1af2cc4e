"""Read the frames of a DICOM series: position, intensity mapping and acquisition parameters."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
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

from lib.geometry.acquisition import facts_of
from lib.geometry.image_geometry import DIRECTION_TOLERANCE
from lib.geometry.volume import VolumeError, shown_name
from lib.geometry.volume_size import GB, max_volume_gb

logger = logging.getLogger(__name__)

_UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_PIXEL_TAG_BYTES = 8  # or 12, before the pixels
_INFLATED_PIECE_BYTES = 2**20
REMEDY = "Choose another series, or resample this one to an even grid at right angles."


class SeriesError(VolumeError):
    """Error of a series that is not a volume on an even grid; its text is for the user."""


@dataclass(frozen=True, eq=False)
class SlicePlane:
    """Position of a slice (DICOM PS3.3 C.7.6.2).

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
    """Slice of the series: a file, or one of the frames of a file.

    Attributes:
        number: index in the file, from 0.
        stored_as: bits allocated, bits stored, and 1 for signed or 0 for unsigned.
        slope, intercept: intensity = slope * stored number + intercept.
        table: dataset with a ModalityLUTSequence, which replaces slope and intercept (DICOM PS3.3 C.11.1).
        instance: SOP instance UID.
        order: instance number, then number.
        facts: acquisition parameters (`lib.geometry.acquisition`).
    """

    plane: SlicePlane
    file: Path
    number: int
    stored_as: tuple[int, int, int]
    slope: float
    intercept: float
    table: Dataset | None
    instance: str
    order: tuple[int, int]
    facts: Mapping[str, str]

    def intensities(self, stored: np.ndarray) -> np.ndarray:
        """Convert stored numbers (rows, columns) to intensities (rows, columns) float64."""
        if self.table is not None:
            return apply_modality_lut(stored, self.table).astype(np.float64)
        return stored * np.float64(self.slope) + self.intercept


def ordered_frames(folder: Path) -> list[Frame]:
    """Return the frames in order of position.

    Raises:
        SeriesError: a header is damaged or unsuitable.
    """
    try:
        headers = {path: _header(path) for path in sorted(folder.iterdir())}
        if len(headers) > 1 and any(_frame_count(header) > 1 for header, _ in headers.values()):
            raise SeriesError("The series has several files of many frames; expected one file, or one for each slice.")
        for path, (header, left) in headers.items():
            _check_room(path, header, left)
        frames = [frame for path, (header, _) in headers.items() for frame in _frames(path, header)]
    except SeriesError:
        raise
    except Exception as error:  # a damaged header raises errors of any kind
        logger.warning("The header of a series cannot be understood: %r", error)
        raise SeriesError(
            "The headers of the series cannot be understood; they may be damaged. Choose another."
        ) from error
    if not frames:
        raise SeriesError("The series is empty.")
    normal = np.cross(*frames[0].plane.directions)
    return sorted(frames, key=lambda frame: float(frame.plane.position_lps_mm @ normal))


def _header(path: Path) -> tuple[Dataset, int]:
    """Return the header without the pixels, and the number of bytes that follow it."""
    try:
        with path.open("rb") as file:
            _check_inflated_size(file)
            header = pydicom.dcmread(file, stop_before_pixels=True)
            left = path.stat().st_size - file.tell()
    except (InvalidDicomError, OSError, EOFError) as error:
        raise SeriesError(f"The series holds a file that is not a DICOM image ({shown_name(path)}).") from error
    if header.get("SamplesPerPixel", 1) != 1:
        raise SeriesError("The series holds colour images; expected intensities of one channel. Choose another.")
    return header, left


def _check_inflated_size(file: BinaryIO) -> None:
    """Raise a SeriesError for a deflated file beyond the limit, because pydicom inflates such a file as a whole."""
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
    """Raise a SeriesError if a header declares no pixels, or more than the file contains (uncompressed files only)."""
    rows, columns, count = int(header.Rows), int(header.Columns), _frame_count(header)
    if min(rows, columns, count) < 1:
        raise SeriesError(f"The series has {count} frames of {columns} x {rows} pixels; expected some of each.")
    expected = rows * columns * count * int(header.BitsAllocated) // 8
    # GDCM pads truncated files.
    if header.file_meta.get("TransferSyntaxUID") in _UNCOMPRESSED and left < expected + _PIXEL_TAG_BYTES:
        raise SeriesError(
            f"The file {shown_name(path)} of the series is cut short: its header declares {expected} bytes of pixels, "
            f"and {max(0, left - _PIXEL_TAG_BYTES)} follow. Send it to the archive again."
        )


def _frame_count(header: Dataset) -> int:
    count = header.get("NumberOfFrames")
    return 1 if count is None else int(count)


def _frames(path: Path, header: Dataset) -> Iterator[Frame]:
    """Yield the frames of a file: one, or those of its functional groups (DICOM PS3.3 C.7.6.16)."""
    count, stored_as, instance = _frame_count(header), _stored_as(header), int(header.get("InstanceNumber") or 0)
    groups = header.get("PerFrameFunctionalGroupsSequence") or [header]
    if len(groups) != count:
        raise SeriesError(f"The series has {count} frames, but places in the patient for {len(groups)}. {REMEDY}")
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    of_all = {**facts_of(header), **facts_of(shared)}
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
        # GDCM treats a slope of 0 as 1.
        rule = (stored_as, slope or 1.0, intercept, table)
        facts = {**of_all, **facts_of(frame)}
        yield Frame(plane, path, number, *rule, str(header.get("SOPInstanceUID", "")), (instance, number), facts)


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
