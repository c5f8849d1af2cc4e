"""Copy valid elements from the headers of a series to its segmentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import highdicom as hd
import numpy as np
from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, DA, DT, TM, DSfloat, PersonName, validate_value

from lib.exchange import seg_provenance as provenance
from lib.exchange.series_frames import Frame, SegmentationError

# Elements of the headers of a series: those that a segmentation refers to, groups of patient and study and elements of
# compression that it repeats, and those of them that must be present but may be empty (DICOM PS3.5 7.4.3, type 2).
REFERENCE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Rows", "Columns")
REPEATED_GROUPS = (0x0008, 0x0010, 0x0012, 0x0020, 0x0032, 0x0038)
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "PositionReferenceIndicator"),
    *LOSSY[1:],
)
SEXES = ("M", "F", "O")
DATE_AND_TIME = {"DA": DA, "DT": DT, "TM": TM}


def clean_copies(series: Sequence[Dataset], frames: Sequence[Frame]) -> list[Dataset]:
    """Return headers with only the elements that a segmentation takes from its source."""
    # highdicom takes patient and study from the first header.
    copies = [_repeated(series[0]), *(Dataset() for _ in series[1:])]
    frame_of_reference = _frame_of_reference(series)
    for copy, header in zip(copies, series, strict=True):
        copy.FrameOfReferenceUID = frame_of_reference
        for keyword in REFERENCE:
            setattr(copy, keyword, getattr(header, keyword))
    measures = _measures(frames)
    if "PerFrameFunctionalGroupsSequence" in series[0]:
        _set_groups(copies[0], frames, measures)
    else:
        for copy, frame in zip(copies, frames, strict=True):
            copy.update(measures[0])
            copy.ImagePositionPatient, copy.ImageOrientationPatient = frame.position_mm, frame.orientation
    return copies


def _set_groups(copy: Dataset, frames: Sequence[Frame], measures: hd.PixelMeasuresSequence) -> None:
    """Set the planes of a multi-frame instance (DICOM PS3.3 C.7.6.16)."""
    shared, per_frame = Dataset(), []
    shared.PixelMeasuresSequence = measures
    shared.PlaneOrientationSequence = hd.PlaneOrientationSequence("PATIENT", frames[0].orientation)
    for frame in frames:
        groups = Dataset()
        groups.PlanePositionSequence = hd.PlanePositionSequence("PATIENT", frame.position_mm)
        per_frame.append(groups)
    copy.SharedFunctionalGroupsSequence, copy.PerFrameFunctionalGroupsSequence = [shared], per_frame
    copy.NumberOfFrames = len(frames)


def _measures(frames: Sequence[Frame]) -> hd.PixelMeasuresSequence:
    """Return pixel spacing, thickness, and the distance of slices by their positions, not by their headers."""
    first = frames[0]
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    distance_mm = np.ptp([frame.position_mm for frame in frames] @ normal) / max(len(frames) - 1, 1)
    return hd.PixelMeasuresSequence(
        first.pixel_spacing_mm, first.thickness_mm or distance_mm, DSfloat(float(distance_mm), auto_format=True)
    )


def _frame_of_reference(series: Sequence[Dataset]) -> str:
    """Return the UID in the headers, or one derived from the series."""
    found = {UID(str(header.get("FrameOfReferenceUID"))) for header in series}
    valid = sorted(uid for uid in found if uid.is_valid)
    if len(valid) > 1:
        raise SegmentationError(
            f"The slices of the series lie in {len(valid)} frames of reference; expected one. Use its NIfTI mask."
        )
    derived = generate_uid(entropy_srcs=["frame of reference", series[0].SeriesInstanceUID])
    return valid[0] if valid else derived


def _repeated(header: Dataset) -> Dataset:
    """Return the valid elements that a segmentation repeats from its source."""
    lossy = [tag_for_keyword(keyword) for keyword in LOSSY]
    tags = sorted(header.keys())
    clean = _parsed(header, [tag for tag in tags if tag.group in REPEATED_GROUPS or tag in lossy])
    clean.LossyImageCompression = "01" if clean.get(LOSSY[0]) == "01" else "00"
    clean.PatientSex = clean.get("PatientSex") if clean.get("PatientSex") in SEXES else ""
    for keyword in MAY_BE_EMPTY:
        if clean.get(keyword) is None or (keyword not in LOSSY and clean[keyword].VM > 1):
            setattr(clean, keyword, "")
    return clean


def scanner_of(header: Dataset) -> Dataset:
    """Return the valid elements that name the equipment of an image."""
    return _parsed(header, [Tag(keyword) for keyword in provenance.EQUIPMENT if keyword in header])


def _parsed(dataset: Dataset, tags: Iterable[BaseTag]) -> Dataset:
    """Return the standard elements with these tags that are valid for their VR."""
    parsed = Dataset()
    for tag in tags:
        with suppress(Exception):  # pydicom raises errors of any kind
            element = dataset[tag]
            if tag.is_private:
                continue
            if element.VR == "SQ":
                parsed.add(DataElement(tag, "SQ", [_parsed(item, sorted(item.keys())) for item in element.value]))
            elif all(_is_of(element.VR, value) for value in (element.value if element.VM > 1 else [element.value])):
                parsed.add(DataElement(tag, element.VR, element.value))
    return parsed


def _is_of(vr: str, value: object) -> bool:
    """Tell whether a value is valid for this VR; numbers that could be read are.

    Raises:
        ValueError: an invalid date, time or text.
    """
    if vr in CUSTOMIZABLE_CHARSET_VR:
        return isinstance(value, str | PersonName | None)
    if isinstance(value, str):
        validate_value(vr, value, config.RAISE)
        DATE_AND_TIME.get(vr, str)(value)
    return True
