"""DICOM SEG: where its voxels lie in millimetres, what it says of its labels, and the series it refers to."""

import io
import json
import subprocess
from types import MappingProxyType

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

from lib import __version__
from lib.exchange.dicom_seg import dicom_segmentation
from lib.exchange.property_codes import property_code
from lib.exchange.segment_origin import ModelFile, SegmentOrigin
from lib.exchange.series_frames import SegmentationError
from lib.geometry.dicom_series import read_series
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, load_volume
from tests.geometry.test_dicom_series import frames as frames_of_one_file
from tests.geometry.test_series_volumes import copies, set_echo, tilted
from tests.installed import need_dciodvfy
from tests.physical import ORDERS, PLANES, SHAPE, SPACING_MM, l_shape, object_lps_mm, series, share_in

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
    segmentation = read_back(dicom_segmentation(mask_of(plane), headers, LABELS, MADE_OF_CLICKS))
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
        Volume(array, ImageGeometry(array.shape, affine_ras)), headers_of(instances), LABELS, MADE_OF_CLICKS
    )

    told_mm = segment_lps_mm(read_back(segmentation), 1)
    np.testing.assert_allclose(in_order(told_mm), in_order(object_lps_mm(instances)), atol=0.01)


def test_highdicom_finds_the_mask_by_the_slices_it_was_made_on():
    instances = series("sagittal", "descending")
    segmentation = dicom_segmentation(mask_of("sagittal"), headers_of(instances), LABELS, MADE_OF_CLICKS)

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

    segmentation = read_back(dicom_segmentation(mask_of("axial"), headers_of(instances), {"Ödem": 1}, MADE_OF_CLICKS))

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

    dicom_segmentation(mask_of("axial"), headers, LABELS, MADE_OF_CLICKS)

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
        dicom_segmentation(mask_of("axial"), instances, LABELS, MADE_OF_CLICKS)


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
    headers = headers_of(series("axial", "ascending")) if headers is None else headers
    return read_back(dicom_segmentation(two_labels(), headers, LABELS, origins, codes))


def test_each_segment_says_what_it_is_and_how_it_was_made():
    lesion, cyst = segmentation_of_two().SegmentSequence

    (of_lesion,), (of_cyst,) = lesion.SegmentedPropertyTypeCodeSequence, cyst.SegmentedPropertyTypeCodeSequence
    assert (of_lesion.CodeValue, of_lesion.CodingSchemeDesignator, of_lesion.CodeMeaning) == (
        *("52988006", "SCT", "Lesion"),
    )
    assert (of_cyst.CodeValue, of_cyst.CodeMeaning) == ("85756007", "Tissue")
    assert lesion.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Morphologically Abnormal Structure"
    assert (lesion.SegmentAlgorithmType, cyst.SegmentAlgorithmType) == ("SEMIAUTOMATIC", "MANUAL")
    assert (lesion.SegmentAlgorithmName, "SegmentAlgorithmName" in cyst) == ("InExtremIS", False)
    (algorithm,) = lesion.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("InExtremIS", "model 3")
    assert algorithm.AlgorithmParameters == f"model_version=3,model_sha256={'ab' * 32}"
    assert "SegmentationAlgorithmIdentificationSequence" not in cyst
    assert (lesion.SegmentDescription, cyst.SegmentDescription) == ("Reader: anna", "Reader: Bob Jones Dr 1")


def test_mask_that_no_network_took_part_in_says_so():
    (segment,) = dicom_segmentation(
        mask_of("axial"), headers_of(series("axial", "ascending")), LABELS, MADE_OF_CLICKS
    ).SegmentSequence

    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmVersion == "no model"
    assert "AlgorithmParameters" not in algorithm


def test_readers_and_equipment_are_named():
    instances = series("axial", "ascending")
    for instance in instances:
        instance.Manufacturer, instance.ManufacturerModelName, instance.DeviceSerialNumber = "Maker", "Scanner", "77"

    segmentation = segmentation_of_two(headers=headers_of(instances))

    assert segmentation.ContentCreatorName == "anna^"
    assert (segmentation.ManufacturerModelName, segmentation.SoftwareVersions) == (
        "InExtremIS for MONAI Label",
        __version__,
    )
    scanner, app = segmentation.ContributingEquipmentSequence
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Acquisition Equipment"
    assert (scanner.Manufacturer, scanner.ManufacturerModelName, scanner.DeviceSerialNumber) == (
        *("Maker", "Scanner", "77"),
    )
    assert app.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"
    assert (app.Manufacturer, app.SoftwareVersions) == ("InExtremIS", __version__)
    assert [str(name) for name in app.OperatorsName] == ["anna^", "Bob Jones Dr 1^"]


def test_equipment_that_the_series_does_not_name_is_left_out():
    instances = series("axial", "ascending")
    put(instances, "Manufacturer", None)

    (app,) = segmentation_of_two(headers=instances).ContributingEquipmentSequence

    assert app.Manufacturer == "InExtremIS"


def test_label_is_tracked_through_all_masks_of_a_series():
    def tracked(segmentation):
        return {segment.TrackingID: segment.TrackingUID for segment in segmentation.SegmentSequence}

    first, other = tracked(segmentation_of_two()), tracked(segmentation_of_two(origins=DRAWN))

    assert first == other
    assert set(first) == {"lesion", "cyst"}
    assert len(set(first.values())) == 2
    assert (
        tracked(segmentation_of_two(headers=headers_of(series("axial", "shuffled")))).items().isdisjoint(first.items())
    )


VARIANTS = {
    "of clicks": lambda: segmentation_of_two(),
    "drawn": lambda: segmentation_of_two(origins=DRAWN, codes={}),
    "by the network": lambda: segmentation_of_two(origins=dict.fromkeys(LABELS, SegmentOrigin("AUTOMATIC"))),
    "de-identified": lambda: segmentation_of_two(headers=de_identified()),
    "of many frames": lambda: read_back(
        dicom_segmentation(mask_of("oblique"), [enhanced(series("oblique"))], LABELS, ORIGINS, CODES)
    ),
}


def de_identified():
    instances = series("axial", "ascending")
    for keyword in OPTIONAL:
        put(instances, keyword, None)
    return instances


def assert_valid(path):
    """By dciodvfy of Debian's dicom3tools, which knows the modules of a segmentation."""
    told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60, check=False).stderr
    assert told.splitlines()[-1] == "Segmentation", told
    assert [line for line in told.splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_validator_finds_no_error(variant, tmp_path):
    need_dciodvfy()
    VARIANTS[variant]().save_as(tmp_path / "segmentation.dcm", write_like_original=False)

    assert_valid(tmp_path / "segmentation.dcm")


def test_two_labels_are_two_segments():
    segmentation = segmentation_of_two()

    assert [(s.SegmentNumber, s.SegmentLabel) for s in segmentation.SegmentSequence] == [(1, "lesion"), (2, "cyst")]
    for number, voxel in ((1, [20, 3, 4]), (2, [2, 3, 4])):
        expected_mm = mask_of("axial").geometry.voxel_to_lps(np.array([voxel]))
        np.testing.assert_allclose(segment_lps_mm(segmentation, number), expected_mm, atol=0.01)


def test_label_without_a_voxel_has_no_segment():
    """OHIF 3 cannot open a segmentation that has a segment without frames."""
    headers = headers_of(series("axial", "ascending"))
    mask = mask_of("axial", 2 * mask_of("axial").array)

    segmentation = read_back(dicom_segmentation(mask, headers, LABELS, DRAWN))

    assert [(s.SegmentNumber, s.SegmentLabel) for s in segmentation.SegmentSequence] == [(1, "cyst")]
    assert len(segment_lps_mm(segmentation, 1)) == np.count_nonzero(mask.array)


def test_a_label_has_the_same_colour_whichever_others_are_there():
    array = two_labels().array
    headers = headers_of(series("axial", "ascending"))

    both = segmentation_of_two()
    one = dicom_segmentation(mask_of("axial", array * (array == 2)), headers, LABELS, DRAWN)

    lesion, cyst = (segment.RecommendedDisplayCIELabValue for segment in both.SegmentSequence)
    assert lesion != cyst
    assert one.SegmentSequence[0].RecommendedDisplayCIELabValue == cyst


def test_colours_are_encoded_as_dicom_wants_them():
    """L from 0 to 100 and a, b from -128 to 127 over 16 bits (DICOM PS3.3 C.10.7.1.1)."""
    headers = headers_of(series("axial", "ascending"))

    segment = dicom_segmentation(mask_of("axial"), headers, LABELS, DRAWN).SegmentSequence[0]

    lightness, a, b = np.array(segment.RecommendedDisplayCIELabValue) / 65535 * [100, 255, 255] - [0, 128, 128]
    red_green_blue = lab2rgb([lightness, a, b])
    np.testing.assert_allclose(red_green_blue, [0x1F / 255, 0x77 / 255, 0xB4 / 255], atol=0.01)  # matplotlib's tab:blue


def test_empty_mask_is_refused():
    with pytest.raises(SegmentationError, match="The mask is empty"):
        dicom_segmentation(mask_of("axial", np.zeros(SHAPE)), headers_of(series("axial", "ascending")), LABELS, DRAWN)


def test_same_mask_has_the_same_uids_and_another_mask_or_origin_others():
    headers = headers_of(series("axial", "ascending"))
    other = mask_of("axial").array
    other[0, 0, 0] = 1

    def uids(mask, labels=LABELS, origins=MADE_OF_CLICKS, codes=MappingProxyType({})):
        segmentation = dicom_segmentation(mask, headers, labels, origins, codes)
        return segmentation.SOPInstanceUID, segmentation.SeriesInstanceUID

    assert uids(mask_of("axial")) == uids(mask_of("axial"))
    others = [
        uids(mask_of("axial", other)),
        uids(mask_of("axial"), {"tumour": 1}),
        uids(mask_of("axial"), origins=ORIGINS),
        uids(mask_of("axial"), codes=CODES),
    ]
    assert len({uid for pair in [uids(mask_of("axial")), *others] for uid in pair}) == 10


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
        dicom_segmentation(mask, headers_of(series("axial", "ascending")), LABELS, MADE_OF_CLICKS)


def test_mask_on_a_finer_grid_is_refused():
    """All of its corners that are compared lie on voxels of the series."""
    affine_ras = PLANES["axial"] @ np.diag([0.5, 1, 1, 1])
    mask = Volume(np.repeat(mask_of("axial").array, 2, axis=0), ImageGeometry((48, 20, 12), affine_ras))

    with pytest.raises(SegmentationError, match="is not on the grid of the series"):
        dicom_segmentation(mask, headers_of(series("axial", "ascending")), LABELS, MADE_OF_CLICKS)


def test_mask_beyond_the_slices_of_the_series_is_refused():
    with pytest.raises(SegmentationError, match="lies in none of the slices"):
        dicom_segmentation(mask_of("axial"), headers_of(series("axial", "ascending"))[:5], LABELS, MADE_OF_CLICKS)


def image_of(instances, folder):
    """The only volume of a series, as the server reads it."""
    (folder / "series").mkdir()
    for instance in instances:
        instance.save_as(folder / "series" / f"{instance.SOPInstanceUID}.dcm", write_like_original=False)
    (volume,) = read_series(folder / "series")
    volume.write(folder / "volume.nii.gz")
    return load_volume(folder / "volume.nii.gz")


@pytest.mark.parametrize("plane", ["axial", "axial, slices downwards", "oblique"])
@pytest.mark.parametrize("degrees", [-25, -1.7, 3.3, 14, 30])
def test_mask_of_straightened_slices_goes_back_to_the_pixels_of_the_tilted_ones(plane, degrees, tmp_path):
    instances = tilted(degrees, plane)
    image = image_of(instances, tmp_path)
    mask = Volume((image.array > 500).astype(np.float32), image.geometry)

    segmentation = read_back(dicom_segmentation(mask, headers_of(instances), LABELS, MADE_OF_CLICKS))

    told_mm, object_mm = segment_lps_mm(segmentation, 1), object_lps_mm(instances)
    assert share_in(told_mm, object_mm) == share_in(object_mm, told_mm) == 1


def test_mask_beside_the_tilted_slices_is_left_out(tmp_path):
    instances = tilted(14)
    image = image_of(instances, tmp_path)
    everywhere = Volume(np.ones_like(image.array), image.geometry)

    segmentation = read_back(dicom_segmentation(everywhere, headers_of(instances), LABELS, MADE_OF_CLICKS))

    assert len(segment_lps_mm(segmentation, 1)) == np.prod(SHAPE)


def test_mask_of_tilted_slices_that_are_gone_is_refused(tmp_path):
    instances = tilted(14)
    image = image_of(instances, tmp_path)

    with pytest.raises(SegmentationError, match="lies in none of the slices"):
        dicom_segmentation(
            Volume(np.ones_like(image.array), image.geometry), headers_of(instances[1:]), LABELS, MADE_OF_CLICKS
        )


def two_volumes():
    return copies(2, set_echo)


def test_mask_of_one_of_several_volumes_refers_to_its_instances_alone():
    instances = two_volumes()
    own = instances[SHAPE[2] :]
    sources = [(instance.SOPInstanceUID, 0) for instance in own]

    segmentation = read_back(
        dicom_segmentation(mask_of("oblique"), headers_of(instances), LABELS, MADE_OF_CLICKS, sources=sources)
    )

    assert share_in(segment_lps_mm(segmentation, 1), object_lps_mm(own)) == 1
    (referred,) = segmentation.ReferencedSeriesSequence
    assert {i.ReferencedSOPInstanceUID for i in referred.ReferencedInstanceSequence} == {uid for uid, _ in sources}


@pytest.mark.parametrize("order", ["by volume", "by position"])
def test_mask_of_one_of_several_volumes_of_frames_refers_to_its_frames_alone(order, tmp_path):
    instances = two_volumes()
    if order == "by position":
        instances = [instances[n + SHAPE[2] * volume] for n in range(SHAPE[2]) for volume in range(2)]
    (together,) = frames_of_one_file(instances)
    ours = [n for n, instance in enumerate(instances) if instance.EchoTime == "9.2"]
    sources = [(together.SOPInstanceUID, n) for n in ours]

    segmentation = read_back(
        dicom_segmentation(mask_of("oblique"), headers_of([together]), LABELS, MADE_OF_CLICKS, sources=sources)
    )

    segmentation.save_as(tmp_path / "segmentation.dcm", write_like_original=False)
    assert_valid(tmp_path / "segmentation.dcm")
    assert share_in(object_lps_mm(series("oblique")), segment_lps_mm(segmentation, 1)) == 1
    numbers = set()
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        place = together.PerFrameFunctionalGroupsSequence[source.ReferencedFrameNumber - 1].PlanePositionSequence[0]
        told_mm = groups.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(np.array(told_mm, float), np.array(place.ImagePositionPatient, float), atol=1e-6)
        numbers.add(source.ReferencedFrameNumber - 1)
    assert numbers <= set(ours)
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert float(measures.SpacingBetweenSlices) == pytest.approx(SPACING_MM[2])


def test_mask_of_an_instance_that_is_gone_is_refused():
    with pytest.raises(SegmentationError, match="does not hold all slices of the image any more"):
        dicom_segmentation(
            mask_of("oblique"), headers_of(two_volumes()), LABELS, MADE_OF_CLICKS, sources=[("1.2.9.9", 0)]
        )
