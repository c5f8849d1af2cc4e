"""Masks as DICOM segmentations (SEG, DICOM PS3.3 A.51) that refer to the series they were made on."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

import highdicom as hd
import numpy as np
from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, DA, DT, TM, DSfloat, PersonName, validate_value

from lib.exchange import seg_provenance as provenance
from lib.exchange.property_codes import TISSUE, code_text
from lib.exchange.segment_origin import SegmentOrigin
from lib.geometry.image_geometry import GRID_TOLERANCE_VOXELS
from lib.geometry.volume import Volume

SERIES_NUMBER = 300
UTF_8 = "ISO_IR 192"
# Of the headers of a series: what a segmentation refers to, what it repeats of patient, study and compression, and
# what of that may be empty but must be there (DICOM PS3.5 7.4.3, type 2).
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


Source = tuple[str, int]
"""A frame: the UID of its instance, and its number in it, from 0."""


class SegmentationError(ValueError):
    """A mask that does not fit the series; its text is for the user."""


@dataclass(frozen=True)
class _Frame:
    """Where a slice lies (DICOM PS3.3 C.7.6.2)."""

    position_mm: Sequence[float]
    orientation: Sequence[float]
    pixel_spacing_mm: Sequence[float]
    thickness_mm: float | None
    rows: int
    columns: int


def dicom_segmentation(
    mask: Volume,
    series: Sequence[Dataset],
    labels: Mapping[str, int],
    origins: Mapping[str, SegmentOrigin],
    codes: Mapping[str, Code] = MappingProxyType({}),
    sources: Collection[Source] | None = None,
) -> Dataset:
    """The mask as one segmentation object with a segment for each label that has a voxel.

    OHIF 3 cannot open a segmentation in which a segment has none. So segments are numbered 1, 2, ... in the order of
    the indices and do not always have the index as their number; their name says which label each is.
    The same mask of the same series and origin has the same UIDs, so that an archive takes a second copy for the first.
    What the headers of de-identified and odd series lack of patient and study, or give as a value of no meaning, is
    empty. A missing frame of reference is derived from the UID of the series, a missing thickness from the positions.

    Args:
        mask: label indices (X, Y, Z), on the grid of the series, whatever the order of its axes; not empty. Of tilted
            slices it is on a straightened grid, and each pixel of a slice gets the label of the voxel nearest to it.
        series: headers of all instances of the series; pixels are not needed.
        labels: the index of each label.
        origins: how each label came about.
        codes: what each label is; default: tissue.
        sources: the frames that the mask was made on; default: all of the series.

    Raises:
        SegmentationError: the mask and the series do not lie on the same grid, the mask is empty, or the headers do
            not say which images they are of and where these lie.
    """
    try:
        with warnings.catch_warnings():
            # Of values that are not as DICOM wants them.
            warnings.simplefilter("ignore", UserWarning)
            return _segmentation(mask, series, labels, origins, codes, sources)
    except SegmentationError:
        raise
    except Exception as error:  # pydicom and highdicom raise whatever a header makes them raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise SegmentationError(
            f"The headers of the series do not make a DICOM segmentation ({reason}); use its NIfTI mask."
        ) from error


def file_content(instance: Dataset) -> bytes:
    """An instance as the bytes of a DICOM file (PS3.10)."""
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
    series, frames, numbers = _of_image(series, sources)
    planes = _planes(mask, frames)
    present = [label for label, index in sorted(labels.items(), key=_index) if (planes == index).any()]
    if not present:
        raise SegmentationError("The mask is empty, and a DICOM segmentation has at least one segment.")
    numbered = np.zeros_like(planes)
    for number, label in enumerate(present, start=1):
        numbered[planes == labels[label]] = number
    content = hashlib.sha256(numbered.tobytes()).hexdigest()
    series_uid = series[0].SeriesInstanceUID
    made = {label: (codes.get(label, TISSUE), origins.get(label, SegmentOrigin())) for label in present}
    readers = provenance.readers(origin for _, origin in made.values())
    said = [f"{label} {code_text(code)} {origin}" for label, (code, origin) in made.items()]
    identity = [series_uid, content, str(said), provenance.VERSION]
    segmentation = hd.seg.Segmentation(
        source_images=_clean_copies(series, frames),
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
    segmentation.ContributingEquipmentSequence = provenance.equipment(_scanner(series[0]), readers)
    segmentation.SpecificCharacterSet = UTF_8
    return segmentation


def _index(label_and_index: tuple[str, int]) -> int:
    return label_and_index[1]


def _of_image(
    series: Sequence[Dataset], sources: Collection[Source] | None
) -> tuple[list[Dataset], list[_Frame], list[int]]:
    """The instances of an image, its frames, and the number of each in its instance, from 0."""
    wanted = None if sources is None else set(sources)
    headers, frames, numbers = [], [], []
    for header in series:
        of_header = enumerate(_frames(header))
        ours = [(n, f) for n, f in of_header if wanted is None or (str(header.get("SOPInstanceUID")), n) in wanted]
        if ours:
            headers.append(header)
            numbers += [number for number, _ in ours]
            frames += [frame for _, frame in ours]
    if wanted is not None and len(frames) < len(wanted):
        raise SegmentationError("The archive does not hold all slices of the image any more; the series has changed.")
    return headers, frames, numbers


def _planes(mask: Volume, frames: Sequence[_Frame]) -> np.ndarray:
    """The mask (frames, rows, columns) uint8."""
    tilted = _are_tilted(frames)
    planes = np.stack([_plane(mask, frame, tilted) for frame in frames])
    # A straightened grid reaches beyond the slices.
    if np.count_nonzero(planes) != np.count_nonzero(mask.array) and not (tilted and len(frames) in mask.array.shape):
        raise SegmentationError("Part of the mask lies in none of the slices of the series; the series has changed.")
    return planes


def _set_frame_numbers(segmentation: Dataset, numbers: Sequence[int]) -> None:
    """Of the frames that those of a segmentation refer to, which were counted among the image's own."""
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in groups.DerivationImageSequence:
            for source in derivation.SourceImageSequence:
                source.ReferencedFrameNumber = numbers[source.ReferencedFrameNumber - 1] + 1


def _are_tilted(frames: Sequence[_Frame]) -> bool:
    """Are slices shifted against each other in their own plane?"""
    first = frames[0]
    positions_mm = np.array([frame.position_mm for frame in frames]) - first.position_mm
    shifts_mm = positions_mm @ np.reshape(first.orientation, (2, 3)).T
    return bool(np.abs(shifts_mm / first.pixel_spacing_mm[::-1]).max() > GRID_TOLERANCE_VOXELS)


def _frames(header: Dataset) -> Iterator[_Frame]:
    """Of an instance, or of each frame of one of many (DICOM PS3.3 C.7.6.16), in their order."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for groups in header.get("PerFrameFunctionalGroupsSequence") or [Dataset()]:
        position, orientation, measures = (
            (groups.get(name) or shared.get(name) or [header])[0]
            for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        )
        try:
            yield _Frame(
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


def _clean_copies(series: Sequence[Dataset], frames: Sequence[_Frame]) -> list[Dataset]:
    """Headers with no more than a segmentation takes from its source, so that no other value can be in its way."""
    # highdicom takes patient and study from the first.
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


def _set_groups(copy: Dataset, frames: Sequence[_Frame], measures: hd.PixelMeasuresSequence) -> None:
    """The planes of an instance of many frames (DICOM PS3.3 C.7.6.16)."""
    shared, per_frame = Dataset(), []
    shared.PixelMeasuresSequence = measures
    shared.PlaneOrientationSequence = hd.PlaneOrientationSequence("PATIENT", frames[0].orientation)
    for frame in frames:
        groups = Dataset()
        groups.PlanePositionSequence = hd.PlanePositionSequence("PATIENT", frame.position_mm)
        per_frame.append(groups)
    copy.SharedFunctionalGroupsSequence, copy.PerFrameFunctionalGroupsSequence = [shared], per_frame
    copy.NumberOfFrames = len(frames)


def _measures(frames: Sequence[_Frame]) -> hd.PixelMeasuresSequence:
    """Pixel spacing, and what the positions say of the distance of slices, whatever their headers do."""
    first = frames[0]
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    distance_mm = np.ptp([frame.position_mm for frame in frames] @ normal) / max(len(frames) - 1, 1)
    return hd.PixelMeasuresSequence(
        first.pixel_spacing_mm, first.thickness_mm or distance_mm, DSfloat(float(distance_mm), auto_format=True)
    )


def _frame_of_reference(series: Sequence[Dataset]) -> str:
    """The UID in the headers; of a series without one, always the same."""
    found = {UID(str(header.get("FrameOfReferenceUID"))) for header in series}
    valid = sorted(uid for uid in found if uid.is_valid)
    if len(valid) > 1:
        raise SegmentationError(
            f"The slices of the series lie in {len(valid)} frames of reference; expected one. Use its NIfTI mask."
        )
    derived = generate_uid(entropy_srcs=["frame of reference", series[0].SeriesInstanceUID])
    return valid[0] if valid else derived


def _repeated(header: Dataset) -> Dataset:
    """What a segmentation has in common with its source, as far as it is there and parses."""
    lossy = [tag_for_keyword(keyword) for keyword in LOSSY]
    tags = sorted(header.keys())
    clean = _parsed(header, [tag for tag in tags if tag.group in REPEATED_GROUPS or tag in lossy])
    clean.LossyImageCompression = "01" if clean.get(LOSSY[0]) == "01" else "00"
    clean.PatientSex = clean.get("PatientSex") if clean.get("PatientSex") in SEXES else ""
    for keyword in MAY_BE_EMPTY:
        if clean.get(keyword) is None or (keyword not in LOSSY and clean[keyword].VM > 1):
            setattr(clean, keyword, "")
    return clean


def _scanner(header: Dataset) -> Dataset:
    """What names the equipment that made an image, as far as it parses."""
    return _parsed(header, [Tag(keyword) for keyword in provenance.EQUIPMENT if keyword in header])


def _parsed(dataset: Dataset, tags: Iterable[BaseTag]) -> Dataset:
    """New elements of those with these tags that are of the standard and whose values are as their VR wants them."""
    parsed = Dataset()
    for tag in tags:
        with suppress(Exception):  # pydicom raises whatever a value makes it raise
            element = dataset[tag]
            if tag.is_private:
                continue
            if element.VR == "SQ":
                parsed.add(DataElement(tag, "SQ", [_parsed(item, sorted(item.keys())) for item in element.value]))
            elif all(_is_of(element.VR, value) for value in (element.value if element.VM > 1 else [element.value])):
                parsed.add(DataElement(tag, element.VR, element.value))
    return parsed


def _is_of(vr: str, value: object) -> bool:
    """Is it a value of this VR? Numbers are, once they are read. Raises: ValueError: a date that is none."""
    if vr in CUSTOMIZABLE_CHARSET_VR:
        return isinstance(value, str | PersonName | None)
    if isinstance(value, str):
        validate_value(vr, value, config.RAISE)
        DATE_AND_TIME.get(vr, str)(value)
    return True


def _plane(mask: Volume, frame: _Frame, tilted: bool) -> np.ndarray:
    """The mask (rows, columns) uint8 in a slice of the series."""
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
    if tilted:  # the slice may lie anywhere between the voxels, in its own plane
        off_voxels -= np.where((edges != 0).any(axis=0), off_voxels[0], 0)
    if (
        np.abs(off_voxels).max() > GRID_TOLERANCE_VOXELS
        or not mask.geometry.contains(nearest_voxel).all()
        or np.sort(np.abs(edges)).tolist() != [[0, 0, frame.columns - 1], [0, 0, frame.rows - 1]]
    ):
        raise SegmentationError("The mask is not on the grid of the series; export it anew from the server.")
    along_columns = np.arange(frame.columns)[:, None] * np.sign(edges[0])
    along_rows = np.arange(frame.rows)[:, None] * np.sign(edges[1])
    voxels = nearest_voxel[0] + along_columns + along_rows[:, None]
    return mask.array[tuple(np.moveaxis(voxels, -1, 0))].astype(np.uint8)
