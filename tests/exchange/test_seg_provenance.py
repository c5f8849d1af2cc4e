"""Codes, algorithms, readers, equipment and colours in a segmentation."""

import numpy as np
from skimage.color import lab2rgb

from lib import __version__
from tests.exchange.dicom_segs import (
    DRAWN,
    headers_of,
    mask_of,
    put,
    segmentation_of_two,
    segmented,
    two_labels,
)
from tests.physical import series


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
    (segment,) = segmented().SegmentSequence

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


def test_a_label_has_the_same_colour_whichever_others_are_there():
    array = two_labels().array

    both = segmentation_of_two()
    one = segmented(mask_of("axial", array * (array == 2)))

    lesion, cyst = (segment.RecommendedDisplayCIELabValue for segment in both.SegmentSequence)
    assert lesion != cyst
    assert one.SegmentSequence[0].RecommendedDisplayCIELabValue == cyst


def test_colours_are_encoded_as_dicom_wants_them():
    """L from 0 to 100 and a, b from -128 to 127 over 16 bits (DICOM PS3.3 C.10.7.1.1)."""
    segment = segmented().SegmentSequence[0]

    lightness, a, b = np.array(segment.RecommendedDisplayCIELabValue) / 65535 * [100, 255, 255] - [0, 128, 128]
    red_green_blue = lab2rgb([lightness, a, b])
    np.testing.assert_allclose(red_green_blue, [0x1F / 255, 0x77 / 255, 0xB4 / 255], atol=0.01)  # matplotlib's tab:blue
