"""Elements that a segmentation repeats from its series: valid ones are kept, others are not."""

import pytest

from lib.exchange.series_frames import SegmentationError
from tests.exchange.dicom_segs import (
    OPTIONAL,
    headers_of,
    put,
    read_back,
    segmentation_that_lies_right,
    segmented,
    without_optional,
)
from tests.physical import SPACING_MM, series

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

    segmentation = read_back(segmented(headers=headers_of(instances), labels={"Ödem": 1}))

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


EMPTY = ["PatientBirthDate", "PatientSex", "PatientID", "PatientName", "StudyID", "StudyDate", "StudyTime"]


@pytest.mark.parametrize("keyword", OPTIONAL)
def test_attribute_that_is_missing_is_in_nobodys_way(keyword):
    instances = series("oblique", "shuffled")
    put(instances, keyword, None)

    segmentation = segmentation_that_lies_right(instances, instances, "oblique")

    if keyword in EMPTY:
        assert segmentation[keyword].value in ("", None)


def test_headers_with_nothing_but_images_make_a_segmentation():
    instances = without_optional("sagittal")

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

    segmentation = segmentation_that_lies_right(series("oblique", "shuffled"), headers, "oblique")

    if keyword in ("PatientSex", "PatientBirthDate", "StudyTime", "StudyDate"):
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

    segmented(headers=headers)

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
        segmented(headers=instances)
