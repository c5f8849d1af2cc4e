"""Make DICOM segmentations, and read where their voxels lie in millimetres."""

import io
import json
import subprocess

import highdicom as hd
import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from lib.exchange.dicom_seg import dicom_segmentation
from lib.exchange.property_codes import property_code
from lib.exchange.segment_origin import ModelFile, SegmentOrigin
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from tests.physical import PLANES, SHAPE, l_shape, object_lps_mm, series

LABELS = {"lesion": 1, "cyst": 2}


MADE_OF_CLICKS = dict.fromkeys(LABELS, SegmentOrigin("SEMIAUTOMATIC", "anna"))


DRAWN = dict.fromkeys(LABELS, SegmentOrigin("MANUAL", "anna"))


def in_order(points_mm):
    """Rows (N, 3) in an order that rounding errors do not change."""
    return points_mm[np.lexsort(np.round(points_mm, 2).T)]


def mask_of(plane, labels=None):
    array = (l_shape() > 500).astype(np.float32) if labels is None else labels
    return Volume(array, ImageGeometry(SHAPE, PLANES[plane]))


def headers_of(instances):
    """As an archive gives them: metadata without pixels, by way of JSON."""
    return [
        Dataset.from_json({tag: entry for tag, entry in json.loads(i.to_json()).items() if tag != "7FE00010"})
        for i in instances
    ]


def segmented(mask=None, headers=None, labels=LABELS, origins=MADE_OF_CLICKS, **options):
    """The segmentation of a mask, by default of the object in an axial series."""
    mask = mask_of("axial") if mask is None else mask
    headers = headers_of(series("axial", "ascending")) if headers is None else headers
    return dicom_segmentation(mask, headers, labels, origins, **options)


def read_back(segmentation):
    """By way of a file, as another program reads it."""
    content = io.BytesIO()
    segmentation.save_as(content, write_like_original=False)
    assert hd.seg.segread(io.BytesIO(content.getvalue())).number_of_segments == len(segmentation.SegmentSequence)
    return pydicom.dcmread(io.BytesIO(content.getvalue()))


def segment_lps_mm(segmentation, number):
    """(N, 3) of a segment, by DICOM PS3.3 equation C.7.6.2.1-1 for each frame."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    row_mm, column_mm = (float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    points = []
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            points += [position + row * column_mm * j + column * row_mm * i for i, j in np.argwhere(frame)]
    return np.array(points)


def segmentation_that_lies_right(instances, headers, plane="axial"):
    """The segmentation of the object, as another program reads it, after a look at where it lies in millimetres."""
    segmentation = read_back(segmented(mask_of(plane), headers))
    told_mm, expected_mm = segment_lps_mm(segmentation, 1), object_lps_mm(instances)
    assert told_mm.shape == expected_mm.shape
    np.testing.assert_allclose(in_order(told_mm), in_order(expected_mm), atol=0.01)
    return segmentation


def enhanced(instances):
    """The series as one instance of many frames, which share what they have in common."""
    for instance in instances:
        instance.ImageType = ["ORIGINAL", "PRIMARY"]
    return hd.legacy.LegacyConvertedEnhancedMRImage(
        instances, generate_uid(), 1, generate_uid(), 1, transfer_syntax_uid=instances[0].file_meta.TransferSyntaxUID
    )


OPTIONAL = [
    *("PatientBirthDate", "PatientSex", "PatientID", "PatientName", "PatientAge", "ReferringPhysicianName"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "SeriesNumber", "InstanceNumber", "Manufacturer"),
    *("SliceThickness", "SpacingBetweenSlices", "FrameOfReferenceUID", "PositionReferenceIndicator"),
]


def put(instances, keyword, value):
    """A value as it stands in a file, whether it is one or not; None takes the attribute away."""
    tag = Tag(tag_for_keyword(keyword))
    for instance in instances:
        if value is None:
            instance.pop(tag, None)
        else:
            instance[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)


def without_optional(plane):
    """A series with nothing but images."""
    instances = series(plane, "ascending")
    for keyword in OPTIONAL:
        put(instances, keyword, None)
    return instances


def two_labels():
    array = np.zeros(SHAPE, np.float32)
    array[2, 3, 4], array[20, 3, 4] = 2, 1
    return mask_of("axial", array)


ORIGINS = {
    "lesion": SegmentOrigin("SEMIAUTOMATIC", "anna", ModelFile(3, "ab" * 32)),
    "cyst": SegmentOrigin("MANUAL", "Bob\\Jones^Dr=1"),
}


CODES = {"lesion": property_code("SCT:52988006")}


def segmentation_of_two(origins=ORIGINS, codes=CODES, headers=None):
    return read_back(segmented(two_labels(), headers, origins=origins, codes=codes))


def assert_valid(path):
    """By dciodvfy of Debian's dicom3tools, which knows the modules of a segmentation."""
    told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60, check=False).stderr
    assert told.splitlines()[-1] == "Segmentation", told
    assert [line for line in told.splitlines() if line.startswith("Error")] == []
