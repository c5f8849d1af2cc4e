"""Read the positions of the slices of a series, and resample a mask to them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from lib.geometry.image_geometry import GRID_TOLERANCE_VOXELS
from lib.geometry.volume import Volume

Source = tuple[str, int]
"""Frame: the UID of its instance, and its number in it, from 0."""


class SegmentationError(ValueError):
    """Error of a mask that does not fit the series; its text is for the user."""


@dataclass(frozen=True)
class Frame:
    """Position of a slice (DICOM PS3.3 C.7.6.2)."""

    position_mm: Sequence[float]
    orientation: Sequence[float]
    pixel_spacing_mm: Sequence[float]
    thickness_mm: float | None
    rows: int
    columns: int


def frames_of_image(
    series: Sequence[Dataset], sources: Collection[Source] | None
) -> tuple[list[Dataset], list[Frame], list[int]]:
    """Return the instances of an image, its frames, and the number of each in its instance, from 0."""
    of_image = None if sources is None else set(sources)
    headers: list[Dataset] = []
    frames: list[Frame] = []
    numbers: list[int] = []
    for header in series:
        uid, count = str(header.get("SOPInstanceUID")), len(frames)
        for number, frame in enumerate(_frames(header)):
            if of_image is None or (uid, number) in of_image:
                frames.append(frame)
                numbers.append(number)
        if len(frames) > count:
            headers.append(header)
    if of_image is not None and len(frames) < len(of_image):
        raise SegmentationError("The archive does not hold all slices of the image any more; the series has changed.")
    return headers, frames, numbers


def mask_in_frames(mask: Volume, frames: Sequence[Frame]) -> np.ndarray:
    """Resample a mask to frames, (frames, rows, columns) uint8."""
    tilted = _are_tilted(frames)
    planes = np.stack([_plane(mask, frame, tilted) for frame in frames])
    # A straightened grid extends beyond the slices.
    if np.count_nonzero(planes) != np.count_nonzero(mask.array) and not (tilted and len(frames) in mask.array.shape):
        raise SegmentationError("Part of the mask lies in none of the slices of the series; the series has changed.")
    return planes


def _are_tilted(frames: Sequence[Frame]) -> bool:
    """Tell whether slices are shifted against each other in their own plane."""
    first = frames[0]
    positions_mm = np.array([frame.position_mm for frame in frames]) - first.position_mm
    shifts_mm = positions_mm @ np.reshape(first.orientation, (2, 3)).T
    return bool(np.abs(shifts_mm / first.pixel_spacing_mm[::-1]).max() > GRID_TOLERANCE_VOXELS)


def _frames(header: Dataset) -> Iterator[Frame]:
    """Yield the frames of an instance (DICOM PS3.3 C.7.6.16), in their order."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for groups in header.get("PerFrameFunctionalGroupsSequence") or [Dataset()]:
        position, orientation, measures = (
            (groups.get(name) or shared.get(name) or [header])[0]
            for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        )
        try:
            yield Frame(
                [float(mm) for mm in position.ImagePositionPatient],
                [float(cosine) for cosine in orientation.ImageOrientationPatient],
                [float(mm) for mm in measures.PixelSpacing],
                _thickness_mm(measures),
                int(header.Rows),
                int(header.Columns),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise SegmentationError(
                "The headers of the series do not say where its slices lie (position, orientation, pixel spacing, "
                "rows, columns); use its NIfTI mask."
            ) from error


def _thickness_mm(measures: Dataset) -> float | None:
    with suppress(AttributeError, TypeError, ValueError):
        thickness_mm = float(measures.SliceThickness)
        return thickness_mm if 0 < thickness_mm < math.inf else None
    return None


def _plane(mask: Volume, frame: Frame, tilted: bool) -> np.ndarray:
    """Return the mask (rows, columns) uint8 in a slice of the series."""
    to_lps_mm = hd.spatial.PixelToReferenceTransformer(
        image_position=frame.position_mm,
        image_orientation=frame.orientation,
        pixel_spacing=frame.pixel_spacing_mm,
    )
    corners = np.array([[0, 0], [frame.columns - 1, 0], [0, frame.rows - 1]])
    corners_voxel = mask.geometry.lps_to_voxel(to_lps_mm(corners))
    edges = np.rint(corners_voxel[1:] - corners_voxel[0]).astype(np.int64)
    nearest_voxel = np.rint(corners_voxel[0]).astype(np.int64) + [[0, 0, 0], *edges]
    off_voxels = corners_voxel - nearest_voxel
    if tilted:  # the slice may be shifted in its own plane
        off_voxels -= np.where((edges != 0).any(axis=0), off_voxels[0], 0)
    if (
        np.abs(off_voxels).max() > GRID_TOLERANCE_VOXELS
        or not mask.geometry.contains(nearest_voxel).all()
        or np.sort(np.abs(edges)).tolist() != [[0, 0, frame.columns - 1], [0, 0, frame.rows - 1]]
    ):
        raise SegmentationError("The mask is not on the grid of the series; export it again from the server.")
    along_columns = np.arange(frame.columns)[:, None] * np.sign(edges[0])
    along_rows = np.arange(frame.rows)[:, None] * np.sign(edges[1])
    voxels = nearest_voxel[0] + along_columns + along_rows[:, None]
    return mask.array[tuple(np.moveaxis(voxels, -1, 0))].astype(np.uint8)
