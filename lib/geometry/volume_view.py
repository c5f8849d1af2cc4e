"""Write scans for browsers: NIfTI of the same voxels on the same grid, in the smallest exact type."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import nibabel as nib
import numpy as np

from lib.geometry.gzip_stream import PIECE_BYTES, gzipped_in_threads
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import LARGEST_INTENSITY, VolumeError, nothing_measured, open_header, unreadable
from lib.geometry.volume_files import NIFTI_BEGIN, StoredVolume, read_intensities

EXACT = {"uint8": "uint8", "int8": "int16", "int16": "int16", "uint16": "uint16"}
"""Stored types that are sent exactly, and the types that they are sent as."""

_MILLIMETRES = (0, 2)  # in xyzt_units; 0 is an unknown unit


def write_view(source: Path, target: Path) -> None:
    """Write an image as .nii.gz, piece by piece to bound the memory.

    Integers are int16 or uint16 if the range allows, other values float32. Missing data become the lowest of the other
    values, as in `load_volume`.

    Raises:
        VolumeError: see `load_volume`.
        OSError: the target cannot be written.
    """
    stored, geometry = open_header(source)
    exact = EXACT.get(stored.dtype.name) if (stored.slope, stored.intercept) == (1.0, 0.0) else None
    found = _Values() if exact else _values(source, stored)
    dtype = np.dtype(exact or found.smallest_type).newbyteorder("<")
    voxels = (_filled(values, found.lowest, dtype) for values in _read(source, stored))
    with target.open("wb") as file:
        file.writelines(gzipped_in_threads(chain([_header(geometry, dtype)], voxels)))


def can_be_served_as_is(path: Path) -> bool:
    """Tell whether a file can be sent without `write_view` to a reader of basic NIfTI.

    Its voxels are read and its checksum is compared.

    Raises:
        VolumeError: it cannot be read.
    """
    stored, _ = open_header(path)
    if not (stored.gzipped and path.name.endswith(".nii.gz") and _is_plain(path)):
        return False
    with _volume_errors(path), gzip.open(path) as file:
        unpacked = 0
        while piece := file.read(PIECE_BYTES):
            unpacked += len(piece)
        if unpacked < stored.skipped + stored.voxels * stored.dtype.itemsize:
            raise EOFError("its end is missing")
    return True


def _is_plain(path: Path) -> bool:
    """Tell whether all readers of NIfTI use the stored numbers and the sform."""
    with gzip.open(path) as file:
        head = file.read(348)
    if head[:4] != (348).to_bytes(4, "little"):
        return False
    header = nib.Nifti1Header(head)
    slope, intercept = header.get_slope_inter()
    return (
        header.get_data_dtype() in (np.dtype("u1"), np.dtype("<i2"), np.dtype("<u2"))
        and int(header["dim"][0]) == 3
        and (slope, intercept) in ((None, None), (1.0, 0.0))
        and int(header["sform_code"]) >= max(1, int(header["qform_code"]))
        and int(header["xyzt_units"]) & 7 in _MILLIMETRES
        and int(header["intent_code"]) == 0
    )


@dataclass(frozen=True)
class _Values:
    """Range of the measured values, and whether all are integers."""

    lowest: float = 0.0
    highest: float = 0.0
    are_whole: bool = True

    @property
    def smallest_type(self) -> str:
        if self.are_whole:
            for name in ("int16", "uint16"):
                limits = np.iinfo(name)
                if limits.min <= self.lowest and self.highest <= limits.max:
                    return name
        return "float32"


def _values(path: Path, stored: StoredVolume) -> _Values:
    """Compute the range of the measured values.

    Raises:
        VolumeError: the file cannot be read, or has no measured value.
    """
    lowest, highest, are_whole = np.inf, -np.inf, True
    for values in _read(path, stored):
        measured = values[_is_measured(values)]
        if measured.size:
            lowest, highest = min(lowest, float(measured.min())), max(highest, float(measured.max()))
            are_whole = are_whole and bool(np.array_equal(np.rint(measured), measured))
    if not np.isfinite(lowest):
        raise nothing_measured(path)
    return _Values(lowest, highest, are_whole)


def _is_measured(values: np.ndarray) -> np.ndarray:
    return (values >= -LARGEST_INTENSITY) & (values <= LARGEST_INTENSITY)


def _filled(values: np.ndarray, lowest: float, dtype: np.dtype) -> bytes:
    if values.dtype.itemsize > 2:
        values = np.where(_is_measured(values), values, lowest)
    return values.astype(dtype).tobytes()


def _read(path: Path, stored: StoredVolume) -> Iterator[np.ndarray]:
    """Yield the intensities (N,) of consecutive pieces.

    Raises:
        VolumeError: the file cannot be read.
    """
    with _volume_errors(path):
        yield from read_intensities(path, stored)


@contextmanager
def _volume_errors(path: Path) -> Iterator[None]:
    """Replace the exceptions that damaged files cause by a VolumeError."""
    try:
        yield
    except (VolumeError, GeneratorExit):
        raise
    except Exception as error:  # a damaged file raises errors of any kind
        raise unreadable(path, error) from error


def _header(geometry: ImageGeometry, dtype: np.dtype) -> bytes:
    header = nib.Nifti1Header(endianness="<")
    header.set_data_shape(geometry.shape)
    header.set_data_dtype(dtype)
    header.set_sform(geometry.affine_ras, code=1)
    header.set_qform(geometry.affine_ras, code=1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["magic"], header["vox_offset"] = b"n+1", NIFTI_BEGIN
    return header.binaryblock.ljust(NIFTI_BEGIN, b"\0")


def middle_axial_slice(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """Read the middle slice along the axis that is closest to inferior-superior, in radiological orientation.

    Returns:
        (rows, columns) float32, anterior at the top and the patient's right at the left; and mm between the rows and
        between the columns.

    Raises:
        VolumeError: see `load_volume`.
    """
    stored, geometry = open_header(path)
    directions = nib.io_orientation(geometry.affine_ras)
    x, y, z = (int(np.flatnonzero(directions[:, 0] == world)[0]) for world in range(3))
    slice_ = _slice(path, stored, geometry, z, geometry.shape[z] // 2)
    shown = slice_.T if x < y else slice_  # the remaining axes are in stored order
    if directions[x, 1] > 0:  # columns from the patient's right to the left
        shown = shown[:, ::-1]
    if directions[y, 1] > 0:  # rows from the front to the back
        shown = shown[::-1]
    return shown, (geometry.spacing_mm[y], geometry.spacing_mm[x])


def _slice(path: Path, stored: StoredVolume, geometry: ImageGeometry, axis: int, number: int) -> np.ndarray:
    """Read a slice across one stored axis, float32; the file is not read beyond it."""
    shape = geometry.shape
    slice_shape = tuple(length for other, length in enumerate(shape) if other != axis)
    positions = _positions_of_slice(shape, axis, number)
    slice_ = np.empty(len(positions), np.float32)
    first = 0
    for values in _read(path, stored):
        begin, end = np.searchsorted(positions, (first, first + len(values)))
        slice_[begin:end] = values[positions[begin:end] - first]
        first += len(values)
        if end == len(positions):
            break
    slice_[~_is_measured(slice_)] = np.nan
    slice_[np.isnan(slice_)] = np.nanmin(slice_) if np.isfinite(slice_).any() else 0
    return slice_.reshape(slice_shape, order="F")


def _positions_of_slice(shape: tuple[int, int, int], axis: int, number: int) -> np.ndarray:
    """Return the positions (N,) of the voxels of a slice in the file, ascending."""
    steps = (1, shape[0], shape[0] * shape[1])
    slower, faster = ((1 if axis == 2 else 2), (0 if axis else 1))
    positions = np.arange(shape[slower])[:, None] * steps[slower] + np.arange(shape[faster]) * steps[faster]
    return np.asarray(positions).ravel() + number * steps[axis]
