"""DICOM SEG: where its voxels lie in millimetres, what it says of its labels, and the series it refers to."""

import io
import json

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import generate_uid
from skimage.color import lab2rgb

from lib.exchange.dicom_seg import SegmentationError, dicom_segmentation
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from tests.physical import ORDERS, PLANES, SHAPE, SPACING_MM, l_shape, object_lps_mm, series

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
    segmentation = read_back(dicom_segmentation(mask_of(plane), headers, LABELS, by_hand=False))
    told_mm, expected_mm = segment_lps_mm(segmentation, 1), object_lps_mm(instances)
    assert told_mm.shape == expected_mm.shape
    np.testing.assert_allclose(in_order(told_mm), in_order(expected_mm), atol=0.01)
    return segmentation


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("plane", PLANES)
def test_segment_lies_where_the_object_lies(plane, order):
    instances = series(plane, order)

    segmentation_that_lies_right(instances, headers_of(instances), plane)


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


def enhanced(instances):
    """The series as one instance of many frames, which share what they have in common."""
    for instance in instances:
        instance.ImageType = ["ORIGINAL", "PRIMARY"]
    return hd.legacy.LegacyConvertedEnhancedMRImage(
        instances, generate_uid(), 1, generate_uid(), 1, transfer_syntax_uid=instances[0].file_meta.TransferSyntaxUID
    )


GROUPS = {
    "shared": [],
    "measures by frame": ["PixelMeasuresSequence"],
    "orientation by frame": ["PlaneOrientationSequence"],
    "all by frame": ["PixelMeasuresSequence", "PlaneOrientationSequence"],
}
FRAME_ORDERS = {
    "as stored": range(SHAPE[2]),
    "reversed": range(SHAPE[2])[::-1],
    "shuffled": np.random.default_rng(5).permutation(SHAPE[2]),
}


@pytest.mark.parametrize("order", FRAME_ORDERS.values(), ids=FRAME_ORDERS)
@pytest.mark.parametrize("by_frame", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("thickness", ["0.5", None])
def test_frames_of_one_file_are_slices_too(by_frame, order, thickness):
    instances = series("oblique", "ascending")
    together = enhanced(instances)
    (shared,) = together.SharedFunctionalGroupsSequence
    del shared.PixelMeasuresSequence[0].SpacingBetweenSlices
    shared.PixelMeasuresSequence[0].SliceThickness = thickness
    frames = together.PerFrameFunctionalGroupsSequence
    for group in by_frame:
        for frame in frames:
            frame[group] = shared[group]
        del shared[group]
    together.PerFrameFunctionalGroupsSequence = [frames[index] for index in order]

    segmentation = segmentation_that_lies_right(instances, [together], "oblique")

    (referred,) = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert referred.ReferencedSOPInstanceUID == together.SOPInstanceUID
    # Each frame names the frame of the source that lies where it lies.
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        number = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        source = together.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0]
        told_mm = groups.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(np.array(told_mm, float), np.array(source.ImagePositionPatient, float), atol=1e-6)
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert float(measures.SpacingBetweenSlices) == pytest.approx(SPACING_MM[2])
    assert float(measures.SliceThickness) == pytest.approx(float(thickness or SPACING_MM[2]))


NAMES = [
    ("Müller^Änne", "ISO_IR 192"),
    ("Müller^Änne", "ISO_IR 100"),
    ("Müller^Änne", None),
    ("Yamada^Tarou=山田^太郎", "ISO_IR 192"),
    ("Smith^Ann", None),
    ("Anonymous", None),
]


@pytest.mark.parametrize(("patient", "character_set"), NAMES)
@pytest.mark.parametrize("headers_of", [headers_of, list], ids=["from JSON", "from files"])
def test_labels_patient_and_series_are_named(patient, character_set, headers_of):
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


OPTIONAL = [
    *("PatientBirthDate", "PatientSex", "PatientID", "PatientName", "PatientAge", "ReferringPhysicianName"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "SeriesNumber", "InstanceNumber", "Manufacturer"),
    *("SliceThickness", "SpacingBetweenSlices", "FrameOfReferenceUID", "PositionReferenceIndicator"),
]
EMPTY = ["PatientBirthDate", "PatientSex", "PatientID", "PatientName", "StudyID", "StudyDate", "StudyTime"]


def put(instances, keyword, value):
    """A value as it stands in a file, whether it is one or not; None takes the attribute away."""
    tag = Tag(tag_for_keyword(keyword))
    for instance in instances:
        if value is None:
            instance.pop(tag, None)
        else:
            instance[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)


@pytest.mark.parametrize("keyword", OPTIONAL)
def test_attribute_that_is_missing_is_in_nobodys_way(keyword):
    instances = series("oblique", "shuffled")
    put(instances, keyword, None)

    segmentation = segmentation_that_lies_right(instances, instances, "oblique")

    if keyword in EMPTY:
        assert segmentation[keyword].value in ("", None)


def test_headers_with_nothing_but_images_make_a_segmentation():
    instances = series("sagittal", "descending")
    for keyword in OPTIONAL:
        put(instances, keyword, None)

    segmentation = segmentation_that_lies_right(instances, instances, "sagittal")

    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert float(measures.SliceThickness) == float(measures.SpacingBetweenSlices) == pytest.approx(SPACING_MM[2])


NONSENSE = {
    "PatientSex": [b"X", b"male", b"W ", b"\xff"],
    "PatientBirthDate": [b"19500000", b"unknown", b"19500231", b"1950", b"1.1.1950", b"19500101\\19510101"],
    "PatientAge": [b"garbage", b"65", b"-1"],
    "PatientID": [b"\xfc\xe4", b"1\\2"],
    "PatientName": [b"\xfc\xe4", b"A^B\\C^D", b"=" * 5, b"^" * 9],
    "StudyDate": [b"2020-01-01", b"today", b"20201301"],
    "StudyTime": [b"12:30:00", b"noon", b"256161", b"1200-1300"],
    "StudyID": [b"x" * 80],
    "AccessionNumber": [b"x" * 80],
    "SliceThickness": [b"thin", b"0", b"-2", b"nan", b"1\\2", b""],
    "SpacingBetweenSlices": [b"wide", b"-1", b"99"],
    "FrameOfReferenceUID": [b"none", b"1.2.x", b"1..2", b"." * 70, b""],
    "PositionReferenceIndicator": [b"\xff"],
    "SeriesNumber": [b"one", b"1.5"],
    "InstanceNumber": [b"one", b"99999999999999"],
    "NumberOfFrames": [b"1", b"0", b"1A"],
    "LossyImageCompression": [b"01", b"yes"],
    "PatientWeight": [b"heavy", b"70 kg"],
    "OtherPatientIDs": [b"\xff\\\xfe"],
    "TotalPixelMatrixRows": [b"\x05\x00\x00\x00"],
    "ReferringPhysicianName": [b"\xff"],
    "SpecificCharacterSet": [b"ISO_IR 999", b"GB18030"],
}


@pytest.mark.parametrize(
    ("keyword", "value"), [(keyword, value) for keyword, values in NONSENSE.items() for value in values]
)
def test_value_that_is_none_is_in_nobodys_way(keyword, value):
    headers = series("oblique", "shuffled")
    put(headers, keyword, value)

    segmentation_that_lies_right(series("oblique", "shuffled"), headers, "oblique")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientSex", b"X"), ("PatientBirthDate", b"19500231"), ("StudyTime", b"12:30:00"), ("StudyDate", b"today")],
)
def test_value_that_is_none_is_not_passed_on(keyword, value):
    instances = series("axial", "ascending")
    put(instances, keyword, value)

    segmentation = segmentation_that_lies_right(instances, instances)

    assert segmentation[keyword].value in ("", None)


KEPT = {
    "PatientSex": b"F",
    "PatientBirthDate": b"19500228",
    "PatientAge": b"065Y",
    "PatientID": b"0123456789abcdef" * 5,
    "PatientWeight": b"70.5",
    "StudyTime": b"123000.25",
    "StudyDescription": b"head",
    "PatientIdentityRemoved": b"YES",
    "LossyImageCompression": b"01",
}


@pytest.mark.parametrize("keyword", KEPT)
def test_value_that_is_one_is_kept(keyword):
    instances = series("axial", "ascending")
    put(instances, keyword, KEPT[keyword])

    segmentation = segmentation_that_lies_right(instances, instances)

    assert str(segmentation[keyword].value) == KEPT[keyword].decode()


def test_headers_are_not_changed():
    headers = headers_of(series("axial", "ascending"))
    put(headers, "PatientSex", b"X")
    before = [header.to_json() for header in headers]

    dicom_segmentation(mask_of("axial"), headers, LABELS, by_hand=False)

    assert [header.to_json() for header in headers] == before


def test_private_elements_are_not_passed_on():
    instances = series("axial", "ascending")
    for instance in instances:
        instance.private_block(0x0011, "SOMEBODY", create=True).add_new(0x01, "LO", "secret")
        instance.private_block(0x0029, "SOMEBODY", create=True).add_new(0x10, "OB", b"\0\1")

    segmentation = segmentation_that_lies_right(instances, headers_of(instances))

    assert not [element for element in segmentation.iterall() if element.tag.is_private]


def test_frame_of_reference_that_is_missing_is_the_same_each_time():
    def frame_of_reference(order):
        instances = series("axial", order)
        put(instances, "FrameOfReferenceUID", None)
        return segmentation_that_lies_right(instances, instances).FrameOfReferenceUID

    assert frame_of_reference("ascending") == frame_of_reference("ascending")
    assert frame_of_reference("ascending") != frame_of_reference("shuffled")
    assert frame_of_reference("ascending").is_valid


def test_frame_of_reference_that_some_slices_have_is_that_of_all():
    instances = series("axial", "ascending")
    put(instances[::2], "FrameOfReferenceUID", None)

    segmentation = segmentation_that_lies_right(instances, instances)

    assert segmentation.FrameOfReferenceUID == instances[1].FrameOfReferenceUID


@pytest.mark.parametrize(
    ("keyword", "value", "sentence"),
    [
        ("FrameOfReferenceUID", b"1.2.3", "lie in 2 frames of reference"),
        ("ImagePositionPatient", None, "do not say where its slices lie"),
        ("ImagePositionPatient", b"here", "do not say where its slices lie"),
        ("PixelSpacing", None, "do not say where its slices lie"),
        ("ImageOrientationPatient", b"1\\0", "do not "),
        ("SOPClassUID", b"1.2.3.4", "do not make a DICOM segmentation .KeyError: '1.2.3.4'.; use its NIfTI mask"),
        ("SOPInstanceUID", None, "do not make a DICOM segmentation .*SOPInstanceUID"),
        (
            "StudyInstanceUID",
            b"1.2.3",
            "do not make a DICOM segmentation .ValueError: Source images must",
        ),
    ],
)
def test_headers_that_make_no_segmentation_are_a_sentence(keyword, value, sentence):
    instances = series("axial", "ascending")
    put(instances[:1], keyword, value)

    with pytest.raises(SegmentationError, match=sentence):
        dicom_segmentation(mask_of("axial"), instances, LABELS, by_hand=False)


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
