"""DICOM SEG: where its voxels lie in millimetres, what it says of its labels, and the series it refers to."""

import io
import json

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from skimage.color import lab2rgb

from lib.annotations.geometry import ImageGeometry
from lib.annotations.volume import Volume
from lib.exchange.dicom_seg import SegmentationError, dicom_segmentation
from tests.physical import ORDERS, PLANES, SHAPE, l_shape, object_lps_mm, series

LABELS = {"lesion": 1, "cyst": 2}


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


def read_back(segmentation):
    """By way of a file, as another program reads it."""
    content = io.BytesIO()
    segmentation.save_as(content, write_like_original=False)
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


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("plane", PLANES)
def test_segment_lies_where_the_object_lies(plane, order):
    instances = series(plane, order)

    segmentation = read_back(dicom_segmentation(mask_of(plane), headers_of(instances), LABELS, by_hand=False))

    told_mm, expected_mm = segment_lps_mm(segmentation, 1), object_lps_mm(instances)
    assert told_mm.shape == expected_mm.shape
    np.testing.assert_allclose(in_order(told_mm), in_order(expected_mm), atol=0.01)


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SAR", "PIL"])
def test_order_of_the_axes_of_the_mask_does_not_matter(axes):
    instances = series("oblique", "shuffled")
    mask = mask_of("oblique")
    turn = ornt_transform(io_orientation(mask.geometry.affine_ras), axcodes2ornt(axes))
    array = nib.apply_orientation(mask.array, turn)
    affine_ras = mask.geometry.affine_ras @ inv_ornt_aff(turn, SHAPE)

    segmentation = dicom_segmentation(
        Volume(array, ImageGeometry(array.shape, affine_ras)), headers_of(instances), LABELS, by_hand=False
    )

    told_mm = segment_lps_mm(read_back(segmentation), 1)
    np.testing.assert_allclose(in_order(told_mm), in_order(object_lps_mm(instances)), atol=0.01)


def test_highdicom_finds_the_mask_by_the_slices_it_was_made_on():
    instances = series("sagittal", "descending")
    segmentation = dicom_segmentation(mask_of("sagittal"), headers_of(instances), LABELS, by_hand=False)

    read = hd.seg.Segmentation.from_dataset(read_back(segmentation))
    planes = read.get_pixels_by_source_instance(
        [instance.SOPInstanceUID for instance in instances],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )

    np.testing.assert_array_equal(planes, [instance.pixel_array > 500 for instance in instances])


def test_frames_of_one_file_are_slices_too():
    instances = series("oblique", "ascending")
    for instance in instances:
        instance.ImageType = ["ORIGINAL", "PRIMARY"]
    together = hd.legacy.LegacyConvertedEnhancedMRImage(
        instances, generate_uid(), 1, generate_uid(), 1, transfer_syntax_uid=instances[0].file_meta.TransferSyntaxUID
    )

    segmentation = read_back(dicom_segmentation(mask_of("oblique"), [together], LABELS, by_hand=False))

    told_mm = segment_lps_mm(segmentation, 1)
    np.testing.assert_allclose(in_order(told_mm), in_order(object_lps_mm(instances)), atol=0.01)
    (referred,) = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert referred.ReferencedSOPInstanceUID == together.SOPInstanceUID


@pytest.mark.parametrize(("patient", "character_set"), [("Müller^Änne", "ISO_IR 192"), ("Smith^Ann", None)])
def test_labels_patient_and_series_are_named(patient, character_set):
    instances = series("axial", "ascending")
    for instance in instances:
        instance.PatientName = patient
        if character_set:
            instance.SpecificCharacterSet = character_set

    segmentation = read_back(dicom_segmentation(mask_of("axial"), headers_of(instances), {"Ödem": 1}, by_hand=False))

    assert [(s.SegmentNumber, s.SegmentLabel) for s in segmentation.SegmentSequence] == [(1, "Ödem")]
    assert segmentation.SpecificCharacterSet == "ISO_IR 192"
    assert str(segmentation.PatientName) == patient
    assert segmentation.PatientID == instances[0].PatientID
    assert segmentation.StudyInstanceUID == instances[0].StudyInstanceUID
    assert segmentation.FrameOfReferenceUID == instances[0].FrameOfReferenceUID
    assert (segmentation.Modality, segmentation.SegmentationType) == ("SEG", "BINARY")
    (referred,) = segmentation.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == instances[0].SeriesInstanceUID
    assert {i.ReferencedSOPInstanceUID for i in referred.ReferencedInstanceSequence} == {
        i.SOPInstanceUID for i in instances
    }


@pytest.mark.parametrize(("by_hand", "algorithm"), [(True, "MANUAL"), (False, "SEMIAUTOMATIC")])
def test_who_made_the_mask_is_said(by_hand, algorithm):
    headers = headers_of(series("axial", "ascending"))

    segmentation = dicom_segmentation(mask_of("axial"), headers, LABELS, by_hand=by_hand)

    assert {segment.SegmentAlgorithmType for segment in segmentation.SegmentSequence} == {algorithm}


def test_two_labels_are_two_segments():
    array = np.zeros(SHAPE, np.float32)
    array[2, 3, 4], array[20, 3, 4] = 2, 1
    instances = series("axial", "ascending")

    segmentation = read_back(dicom_segmentation(mask_of("axial", array), headers_of(instances), LABELS, by_hand=False))

    assert [(s.SegmentNumber, s.SegmentLabel) for s in segmentation.SegmentSequence] == [(1, "lesion"), (2, "cyst")]
    for number, voxel in ((1, [20, 3, 4]), (2, [2, 3, 4])):
        expected_mm = mask_of("axial").geometry.voxel_to_lps(np.array([voxel]))
        np.testing.assert_allclose(segment_lps_mm(segmentation, number), expected_mm, atol=0.01)


def test_label_without_a_voxel_has_no_segment():
    """OHIF 3 cannot open a segmentation that has a segment without frames."""
    headers = headers_of(series("axial", "ascending"))
    mask = mask_of("axial", 2 * mask_of("axial").array)

    segmentation = read_back(dicom_segmentation(mask, headers, LABELS, by_hand=True))

    assert [(s.SegmentNumber, s.SegmentLabel) for s in segmentation.SegmentSequence] == [(1, "cyst")]
    assert len(segment_lps_mm(segmentation, 1)) == np.count_nonzero(mask.array)


def test_a_label_has_the_same_colour_whichever_others_are_there():
    array = np.zeros(SHAPE, np.float32)
    array[2, 3, 4], array[20, 3, 4] = 2, 1
    headers = headers_of(series("axial", "ascending"))

    both = dicom_segmentation(mask_of("axial", array), headers, LABELS, by_hand=True)
    one = dicom_segmentation(mask_of("axial", array * (array == 2)), headers, LABELS, by_hand=True)

    lesion, cyst = (segment.RecommendedDisplayCIELabValue for segment in both.SegmentSequence)
    assert lesion != cyst
    assert one.SegmentSequence[0].RecommendedDisplayCIELabValue == cyst


def test_colours_are_encoded_as_dicom_wants_them():
    """L from 0 to 100 and a, b from -128 to 127 over 16 bits (DICOM PS3.3 C.10.7.1.1)."""
    headers = headers_of(series("axial", "ascending"))

    segment = dicom_segmentation(mask_of("axial"), headers, LABELS, by_hand=True).SegmentSequence[0]

    lightness, a, b = np.array(segment.RecommendedDisplayCIELabValue) / 65535 * [100, 255, 255] - [0, 128, 128]
    red_green_blue = lab2rgb([lightness, a, b])
    np.testing.assert_allclose(red_green_blue, [0x1F / 255, 0x77 / 255, 0xB4 / 255], atol=0.01)  # matplotlib's tab:blue


def test_empty_mask_is_refused():
    with pytest.raises(SegmentationError, match="The mask is empty"):
        dicom_segmentation(
            mask_of("axial", np.zeros(SHAPE)), headers_of(series("axial", "ascending")), LABELS, by_hand=True
        )


def test_same_mask_has_the_same_uids_and_another_mask_others():
    headers = headers_of(series("axial", "ascending"))
    other = mask_of("axial").array
    other[0, 0, 0] = 1

    def uids(mask, labels=LABELS):
        segmentation = dicom_segmentation(mask, headers, labels, by_hand=False)
        return segmentation.SOPInstanceUID, segmentation.SeriesInstanceUID

    assert uids(mask_of("axial")) == uids(mask_of("axial"))
    others = [uids(mask_of("axial", other)), uids(mask_of("axial"), {"tumour": 1})]
    assert len({uid for pair in [uids(mask_of("axial")), *others] for uid in pair}) == 6


@pytest.mark.parametrize(
    ("move_mm", "fault"),
    [
        ([0.35, 0, 0], "is not on the grid of the series"),
        ([7.0, 0, 0], "is not on the grid of the series"),
        ([0, 0, 2.5], "is not on the grid of the series"),
    ],
)
def test_mask_on_another_grid_is_refused(move_mm, fault):
    affine_ras = PLANES["axial"].copy()
    affine_ras[:3, 3] += move_mm
    mask = Volume(mask_of("axial").array, ImageGeometry(SHAPE, affine_ras))

    with pytest.raises(SegmentationError, match=fault):
        dicom_segmentation(mask, headers_of(series("axial", "ascending")), LABELS, by_hand=False)


def test_mask_on_a_finer_grid_is_refused():
    """All of its corners that are compared lie on voxels of the series."""
    affine_ras = PLANES["axial"] @ np.diag([0.5, 1, 1, 1])
    mask = Volume(np.repeat(mask_of("axial").array, 2, axis=0), ImageGeometry((48, 20, 12), affine_ras))

    with pytest.raises(SegmentationError, match="is not on the grid of the series"):
        dicom_segmentation(mask, headers_of(series("axial", "ascending")), LABELS, by_hand=False)


def test_mask_beyond_the_slices_of_the_series_is_refused():
    with pytest.raises(SegmentationError, match="lies in none of the slices"):
        dicom_segmentation(mask_of("axial"), headers_of(series("axial", "ascending"))[:5], LABELS, by_hand=False)
