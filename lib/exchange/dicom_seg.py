"""Masks as DICOM segmentations (SEG, DICOM PS3.3 A.51) that refer to the series they were made on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from matplotlib import colormaps
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from skimage.color import rgb2lab

from lib.annotations.volume import Volume

MANUFACTURER, MODEL_NAME, VERSION = "InExtremIS", "InExtremIS for MONAI Label", "0.1.0"
# Beyond it a voxel of the mask could be taken for its neighbour.
TOLERANCE_VOXELS = 0.1
SERIES_NUMBER = 300
# What a structure is beyond its name, the app does not know.
TISSUE = Code("85756007", "SCT", "Tissue")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
PALETTE = colormaps["tab10"].colors  # type: ignore[attr-defined]
UTF_8 = "ISO_IR 192"


class SegmentationError(ValueError):
    """A mask that does not fit the series; its text is for the user."""


@dataclass(frozen=True)
class _Frame:
    """Where a slice lies (DICOM PS3.3 C.7.6.2)."""

    position: Sequence[float]
    orientation: Sequence[float]
    pixel_spacing_mm: Sequence[float]
    rows: int
    columns: int


def dicom_segmentation(mask: Volume, series: Sequence[Dataset], labels: Mapping[str, int], *, by_hand: bool) -> Dataset:
    """The mask as one segmentation object with a segment for each label that has a voxel.

    OHIF 3 cannot open a segmentation in which a segment has none. So segments are numbered 1, 2, ... in the order of
    the indices and do not always have the index as their number; their name says which label each is.
    The same mask of the same series has the same UIDs, so that an archive takes a second copy for the first.

    Args:
        mask: label indices (X, Y, Z), on the grid of the series, whatever the order of its axes; not empty.
        series: headers of all instances of the series; pixels are not needed.
        labels: the index of each label.
        by_hand: a person drew or corrected the mask.

    Raises:
        SegmentationError: the mask and the series do not lie on the same grid, or the mask is empty.
    """
    planes = np.stack([_plane(mask, frame) for frame in _frames(series)])
    if np.count_nonzero(planes) != np.count_nonzero(mask.array):
        raise SegmentationError("Part of the mask lies in none of the slices of the series; the series has changed.")
    present = [label for label, index in sorted(labels.items(), key=_index) if (planes == index).any()]
    if not present:
        raise SegmentationError("The mask is empty, and a DICOM segmentation has at least one segment.")
    numbered = np.zeros_like(planes)
    for number, label in enumerate(present, start=1):
        numbered[planes == labels[label]] = number
    content = hashlib.sha256(numbered.tobytes()).hexdigest()
    identity = [series[0].SeriesInstanceUID, content, str(present), str(by_hand)]
    with warnings.catch_warnings():
        # Of names of patients that are not as DICOM wants them, and of masks without a voxel.
        warnings.simplefilter("ignore", UserWarning)
        segmentation = hd.seg.Segmentation(
            source_images=list(series),
            pixel_array=numbered,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_segment(label, labels[label], n, by_hand) for n, label in enumerate(present, 1)],
            series_instance_uid=generate_uid(entropy_srcs=["series", *identity]),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(entropy_srcs=["instance", *identity]),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=VERSION,
            device_serial_number="1",
            content_label="SEGMENTATION",
            content_description=f"{MODEL_NAME}: {', '.join(present)}"[:64],
            series_description=f"{MANUFACTURER}: {', '.join(present)}"[:64],
        )
    segmentation.SpecificCharacterSet = UTF_8
    return segmentation


def _index(label_and_index: tuple[str, int]) -> int:
    return label_and_index[1]


def _segment(label: str, index: int, number: int, by_hand: bool) -> hd.seg.SegmentDescription:
    algorithm = hd.AlgorithmIdentificationSequence(name=MANUFACTURER, family=ARTIFICIAL_INTELLIGENCE, version=VERSION)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=TISSUE,
        segmented_property_type=TISSUE,
        algorithm_type="MANUAL" if by_hand else "SEMIAUTOMATIC",
        algorithm_identification=None if by_hand else algorithm,
    )
    # By the index and not by the number, so that a structure has the same colour in every study.
    red_green_blue = np.array(PALETTE[(index - 1) % len(PALETTE)])
    description.RecommendedDisplayCIELabValue = list(CIELabColor(*rgb2lab(red_green_blue)).value)
    return description


def _frames(series: Sequence[Dataset]) -> Iterator[_Frame]:
    """Of each instance, or of each frame of the one instance (DICOM PS3.3 C.7.6.16), in their order."""
    for header in series:
        shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        for groups in header.get("PerFrameFunctionalGroupsSequence") or [Dataset()]:
            position, orientation, measures = (
                (groups.get(name) or shared.get(name) or [header])[0]
                for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
            )
            yield _Frame(
                position.ImagePositionPatient,
                orientation.ImageOrientationPatient,
                measures.PixelSpacing,
                header.Rows,
                header.Columns,
            )


def _plane(mask: Volume, frame: _Frame) -> np.ndarray:
    """The mask (rows, columns) uint8 in a slice of the series."""
    to_lps_mm = hd.spatial.PixelToReferenceTransformer(
        image_position=[float(number) for number in frame.position],
        image_orientation=[float(number) for number in frame.orientation],
        pixel_spacing=[float(number) for number in frame.pixel_spacing_mm],
    )
    corners = np.array([[0, 0], [frame.columns - 1, 0], [0, frame.rows - 1]])
    corners_voxel = mask.geometry.lps_to_voxel(to_lps_mm(corners))
    nearest_voxel = np.rint(corners_voxel).astype(np.int64)
    edges = nearest_voxel[1:] - nearest_voxel[0]
    if (
        np.abs(corners_voxel - nearest_voxel).max() > TOLERANCE_VOXELS
        or not mask.geometry.contains(nearest_voxel).all()
        or np.sort(np.abs(edges)).tolist() != [[0, 0, frame.columns - 1], [0, 0, frame.rows - 1]]
    ):
        raise SegmentationError("The mask is not on the grid of the series; export it anew from the server.")
    along_columns = np.arange(frame.columns)[:, None] * np.sign(edges[0])
    along_rows = np.arange(frame.rows)[:, None] * np.sign(edges[1])
    voxels = nearest_voxel[0] + along_columns + along_rows[:, None]
    return mask.array[tuple(np.moveaxis(voxels, -1, 0))].astype(np.uint8)
