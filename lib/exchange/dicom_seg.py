"""Write masks as DICOM segmentations (SEG, DICOM PS3.3 A.51) of their series."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from lib.exchange import seg_provenance as provenance
from lib.exchange.property_codes import TISSUE, code_text
from lib.exchange.segment_origin import SegmentOrigin
from lib.exchange.series_frames import (
    SegmentationError,
    Source,
    frames_of_image,
    mask_in_frames,
)
from lib.exchange.source_headers import (
    clean_copies,
    scanner_of,
)
from lib.geometry.volume import Volume

SERIES_NUMBER = 300

UTF_8 = "ISO_IR 192"


def dicom_segmentation(
    mask: Volume,
    series: Sequence[Dataset],
    labels: Mapping[str, int],
    origins: Mapping[str, SegmentOrigin],
    codes: Mapping[str, Code] = MappingProxyType({}),
    sources: Collection[Source] | None = None,
) -> Dataset:
    """Convert a mask to one segmentation object with a segment for each label that has a voxel.

    OHIF 3 cannot open a segmentation with an empty segment. So segments are numbered 1, 2, ... in the order of the
    indices, and a segment's number may differ from the label's index; its name is the label.
    The same mask of the same series and origin has the same UIDs, so that an archive recognises a second copy.
    Attributes of patient and study that are missing or invalid in the headers are empty. A missing frame of reference
    is derived from the UID of the series, a missing thickness from the positions.

    Args:
        mask: label indices (X, Y, Z), on the grid of the series with axes in any order; not empty. For tilted slices,
            it is on a straightened grid, and each pixel of a slice gets the label of the nearest voxel.
        series: headers of all instances of the series; pixels are not needed.
        labels: index of each label.
        origins: annotator and model of each label.
        codes: code of each label; default: tissue.
        sources: the frames that the mask was made on; default: all of the series.

    Raises:
        SegmentationError: mask and series are on different grids, the mask is empty, or the headers lack UIDs or
            positions.
    """
    try:
        with warnings.catch_warnings():
            # pydicom warns of values that are not valid DICOM.
            warnings.simplefilter("ignore", UserWarning)
            return _segmentation(mask, series, labels, origins, codes, sources)
    except SegmentationError:
        raise
    except Exception as error:  # pydicom and highdicom raise errors of any kind
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise SegmentationError(
            f"The headers of the series do not make a DICOM segmentation ({reason}); use its NIfTI mask."
        ) from error


def file_content(instance: Dataset) -> bytes:
    """Encode an instance as a DICOM file (PS3.10)."""
    content = io.BytesIO()
    instance.save_as(content, write_like_original=False)
    return content.getvalue()


def _segmentation(
    mask: Volume,
    series: Sequence[Dataset],
    labels: Mapping[str, int],
    origins: Mapping[str, SegmentOrigin],
    codes: Mapping[str, Code],
    sources: Collection[Source] | None,
) -> Dataset:
    series, frames, numbers = frames_of_image(series, sources)
    planes = mask_in_frames(mask, frames)
    present = [label for label in sorted(labels, key=lambda label: labels[label]) if (planes == labels[label]).any()]
    if not present:
        raise SegmentationError("The mask is empty, and a DICOM segmentation has at least one segment.")
    numbered = np.zeros_like(planes)
    for number, label in enumerate(present, start=1):
        numbered[planes == labels[label]] = number
    content = hashlib.sha256(numbered.tobytes()).hexdigest()
    series_uid = series[0].SeriesInstanceUID
    made = {label: (codes.get(label, TISSUE), origins.get(label, SegmentOrigin())) for label in present}
    readers = provenance.readers(origin for _, origin in made.values())
    described = [f"{label} {code_text(code)} {origin}" for label, (code, origin) in made.items()]
    identity = [series_uid, content, str(described), provenance.VERSION]
    segmentation = hd.seg.Segmentation(
        source_images=clean_copies(series, frames),
        pixel_array=numbered,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            provenance.segment(number, label, labels[label], *made[label], series_uid)
            for number, label in enumerate(present, start=1)
        ],
        series_instance_uid=generate_uid(entropy_srcs=["series", *identity]),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(entropy_srcs=["instance", *identity]),
        instance_number=1,
        manufacturer=provenance.MANUFACTURER,
        manufacturer_model_name=provenance.MODEL_NAME,
        software_versions=provenance.VERSION,
        device_serial_number=provenance.SERIAL_NUMBER,
        content_creator_name=readers[0] if readers else None,
        content_label="SEGMENTATION",
        content_description=f"{provenance.MODEL_NAME}: {', '.join(present)}"[:64],
        series_description=f"{provenance.MANUFACTURER}: {', '.join(present)}"[:64],
    )
    if "PerFrameFunctionalGroupsSequence" in series[0]:
        _set_frame_numbers(segmentation, numbers)
    segmentation.ContributingEquipmentSequence = provenance.equipment(scanner_of(series[0]), readers)
    segmentation.SpecificCharacterSet = UTF_8
    return segmentation


def _set_frame_numbers(segmentation: Dataset, numbers: Sequence[int]) -> None:
    """Set the referenced frame numbers to those in the instance; highdicom counts the frames of the image only."""
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in groups.DerivationImageSequence:
            for source in derivation.SourceImageSequence:
                source.ReferencedFrameNumber = numbers[source.ReferencedFrameNumber - 1] + 1
