"""Read a DICOM series as volumes, or refuse it with a reason.

Viewers stack the slices of a series by their positions on an even grid at right angles, and send voxel indices of
that grid. ITK does the same and only warns if the slices are not on such a grid, so the headers are checked here.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from lib.geometry.dicom_frames import REMEDY, Frame, SeriesError, SlicePlane, ordered_frames
from lib.geometry.image_geometry import DIRECTION_TOLERANCE, GRID_TOLERANCE_VOXELS, RAS_TO_LPS
from lib.geometry.nifti_image import nifti_image
from lib.geometry.series_volumes import volumes_of
from lib.geometry.tilted_slices import MAX_TILT_DEGREES, straight_grid, straightened
from lib.geometry.volume import VolumeError, check_size

logger = logging.getLogger(__name__)

_RESCALING = {
    "ModalityLUTSequence",
    "PixelValueTransformationSequence",
    "RealWorldValueMappingSequence",
    "RescaleIntercept",
    "RescaleSlope",
}
UPRIGHT = "upright"
"""Name of a volume that was straightened from tilted slices."""

Decoder = Callable[[tuple[Path, ...]], np.ndarray]


@dataclass(frozen=True, eq=False)
class SeriesVolume:
    """Volume of a series.

    Attributes:
        name: name in the series; empty if the series is a single volume that is not tilted.
        frames: in order of position.
        affine_lps: (4, 4) voxel (column, row, slice) to LPS mm.
        size: columns and rows.
        shifts_voxels: (K, 2) shift of each slice against the first in its plane; None for slices that are not tilted.
        decoder: reads the pixels of the files.
    """

    name: str
    frames: Sequence[Frame]
    affine_lps: np.ndarray
    size: tuple[int, int]
    shifts_voxels: np.ndarray | None
    decoder: Decoder

    def write(self, path: Path) -> None:
        """Write the volume as NIfTI.

        The volume is float64 if the slices differ in rescaling.

        Raises:
            SeriesError: the pixels are damaged, or larger than the limit or the free memory.
            OSError: the volume cannot be written.
        """
        nib.save(nifti_image(self._intensities().T, RAS_TO_LPS @ self.affine_lps), path)

    def _intensities(self) -> np.ndarray:
        """Read the intensities (slices, rows, columns)."""
        same = _same_intensities(self.frames)
        _check_volume_size(self.frames, self.size, same)
        try:
            array = _read(self.frames, self.decoder) if same else _read_by_frame(self.frames)
        except Exception as error:  # damaged pixels raise errors of any kind
            logger.warning("The pixels of a series cannot be read: %s", error)
            raise SeriesError(
                "The pixels of the series cannot be read: they are damaged, cut short or compressed in an unknown way. "
                "Send it to the archive again, or choose another."
            ) from error
        columns, rows = self.frames[0].plane.size
        if array.shape != (len(self.frames), rows, columns):
            read, declared = (
                " x ".join(map(str, shape)) for shape in (array.shape[::-1], (columns, rows, len(self.frames)))
            )
            raise SeriesError(f"The series was read as {read} voxels; its headers declare {declared}.")
        return array if self.shifts_voxels is None else straightened(array, self.shifts_voxels, self.size)


def read_series(folder: Path) -> list[SeriesVolume]:
    """Return the volumes of the series in `folder`, one or more DICOM files, by their headers.

    Slices are ordered by position along the cross product of row and column direction, independent of file names,
    instance numbers and the order in a file.

    Raises:
        SeriesError: the files are not volumes on an even grid, tilted or at right angles, or are damaged.
    """
    frames = ordered_frames(folder)
    _check_stackable([frame.plane for frame in frames])
    volumes = volumes_of(frames)
    decoder: Decoder = _decoded
    if len(volumes) > 1 and len({frame.file for frame in frames}) == 1:  # one file is decoded as a whole
        _check_volume_size(frames, frames[0].plane.size, same=True)
        decoder = lru_cache(maxsize=1)(_decoded)
    return [_volume(name, of_volume, decoder) for name, of_volume in volumes.items()]


def _volume(name: str, frames: Sequence[Frame], decoder: Decoder) -> SeriesVolume:
    planes = [frame.plane for frame in frames]
    _check_stackable(planes)
    affine_lps, shifts_voxels = slice_grid(planes)
    size = frames[0].plane.size
    if np.abs(shifts_voxels).max() <= GRID_TOLERANCE_VOXELS:
        return SeriesVolume(name, frames, affine_lps, size, None, decoder)
    affine_lps, (columns, rows) = straight_grid(affine_lps, shifts_voxels, size)
    name = "-".join(filter(None, [name, UPRIGHT]))
    return SeriesVolume(name, frames, affine_lps, (int(columns), int(rows)), shifts_voxels, decoder)


def _same_intensities(frames: Sequence[Frame]) -> bool:
    """Tell whether all frames have the same rescaling, which GDCM and ITK assume."""
    rules = {(frame.slope, frame.intercept, frame.stored_as) for frame in frames}
    return len(rules) == 1 and all(frame.table is None for frame in frames)


def _check_volume_size(frames: Sequence[Frame], size: tuple[int, int], same: bool) -> None:
    first = frames[0]
    whole = same and first.slope.is_integer() and first.intercept.is_integer()
    # Peak memory: the image that GDCM reads, its array, and the ordered array.
    bytes_per_voxel = 3 * (first.stored_as[0] // 8 if whole else 8)
    try:
        check_size((*size, len(frames)), "The series", bytes_per_voxel)
    except VolumeError as error:
        raise SeriesError(str(error)) from error


def _read(frames: Sequence[Frame], decoder: Decoder) -> np.ndarray:
    """Read intensities (frames, rows, columns) as rescaled by GDCM."""
    files = tuple(dict.fromkeys(frame.file for frame in frames))
    if len(files) > 1:
        return decoder(files)
    return decoder(files)[[frame.number for frame in frames]]


def _read_by_frame(frames: Sequence[Frame]) -> np.ndarray:
    """Read intensities (frames, rows, columns) float64, each frame with its own rescaling."""
    planes = []
    with tempfile.TemporaryDirectory() as folder:
        stored, copied = np.empty(0), None
        for frame in frames:
            if frame.file != copied:
                stored, copied = _decoded((_without_rescaling(frame.file, Path(folder, "copy.dcm")),)), frame.file
            planes.append(frame.intensities(stored[frame.number]))
    return np.stack(planes)


def _decoded(files: tuple[Path, ...]) -> np.ndarray:
    """Decode the frames (frames, rows, columns) of one file, or of several with one each."""
    names = [str(file) for file in files]
    image = sitk.ReadImage(names if len(names) > 1 else names[0], imageIO="GDCMImageIO")
    return sitk.GetArrayFromImage(image)


def _without_rescaling(file: Path, copy: Path) -> Path:
    """Copy a file without rescaling, so that GDCM reads the stored numbers."""

    def drop(dataset: Dataset, element: DataElement) -> None:
        if element.keyword in _RESCALING:
            del dataset[element.tag]

    dataset = pydicom.dcmread(file)
    dataset.walk(drop)
    dataset.save_as(copy)
    return copy


def slice_grid(planes: Sequence[SlicePlane]) -> tuple[np.ndarray, np.ndarray]:
    """Return the grid of parallel slices in order of position.

    Returns:
        (4, 4) voxel index (column, row, slice) to LPS mm, as if no slice were shifted; and (K, 2) the shift of each
        slice against the first in its own plane, in columns and rows.

    Raises:
        SeriesError: slices share a position, are unevenly spaced, or have shifts that are not those of a tilted gantry.
    """
    first = planes[0]
    positions_mm = np.array([plane.position_lps_mm for plane in planes]) - first.position_lps_mm
    normal = np.cross(*first.directions)
    along_mm = positions_mm @ normal
    _check_even(along_mm)
    step_mm = along_mm[-1] / (len(planes) - 1)
    shifts_mm = positions_mm @ first.directions.T
    _check_tilt(shifts_mm, first.spacing_mm, step_mm)
    affine_lps = np.eye(4)
    affine_lps[:3, :2] = first.directions.T * first.spacing_mm
    affine_lps[:3, 2] = normal * step_mm
    affine_lps[:3, 3] = first.position_lps_mm
    return affine_lps, shifts_mm / first.spacing_mm


def _check_tilt(shifts_mm: np.ndarray, spacing_mm: np.ndarray, step_mm: float) -> None:
    """Raise a SeriesError if shifts (K, 2) of slices in their plane are not those of a tilted gantry."""
    even_mm = np.linspace(0, shifts_mm[-1], len(shifts_mm))
    tilt_degrees = np.degrees(np.arctan2(np.linalg.norm(shifts_mm[-1]), step_mm * (len(shifts_mm) - 1)))
    uneven_voxels = np.abs((shifts_mm - even_mm) / spacing_mm).max()
    if uneven_voxels > GRID_TOLERANCE_VOXELS or tilt_degrees > MAX_TILT_DEGREES:
        raise SeriesError(
            f"The slices of the series are shifted by up to {np.abs(shifts_mm).max():.1f} mm in their own plane, and "
            f"not as by a gantry that is tilted by up to {MAX_TILT_DEGREES:g} degrees. {REMEDY}"
        )


def _check_stackable(planes: Sequence[SlicePlane]) -> None:
    if len(planes) < 2:
        raise SeriesError(f"The series has {len(planes)} slice; expected a volume of several.")
    first = planes[0]
    for plane in planes[1:]:
        if np.abs(plane.directions - first.directions).max() > DIRECTION_TOLERANCE:
            raise SeriesError("The slices of the series are not parallel, as those of a localizer. Choose another.")
        if plane.size != first.size or not np.allclose(plane.spacing_mm, first.spacing_mm, rtol=1e-4):
            raise SeriesError("The slices of the series differ in size or pixel spacing. Choose another.")


def _check_even(along_mm: np.ndarray) -> None:
    """Raise a SeriesError if positions (N,) of ordered slices along their normal are not evenly spaced."""
    gaps_mm = np.diff(along_mm)
    step_mm = along_mm[-1] / len(gaps_mm)
    if np.abs(along_mm - step_mm * np.arange(len(along_mm))).max() > GRID_TOLERANCE_VOXELS * step_mm:
        raise SeriesError(
            f"The slices of the series are unevenly spaced, from {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm; slices "
            f"may be missing in the archive. {REMEDY}"
        )
