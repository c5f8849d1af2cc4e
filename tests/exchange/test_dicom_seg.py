"""DICOM SEG: position of its voxels in millimetres, its segments and its UIDs."""

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from lib.exchange.segment_origin import SegmentOrigin
from lib.exchange.series_frames import SegmentationError
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from tests.exchange.dicom_segs import (
    CODES,
    DRAWN,
    LABELS,
    ORIGINS,
    assert_valid,
    enhanced,
    headers_of,
    in_order,
    mask_of,
    read_back,
    segment_lps_mm,
    segmentation_of_two,
    segmentation_that_lies_right,
    segmented,
    without_optional,
)
from tests.installed import need_dciodvfy
from tests.physical import ORDERS, PLANES, SHAPE, object_lps_mm, series


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

    segmentation = segmented(Volume(array, ImageGeometry(array.shape, affine_ras)), headers_of(instances))

    told_mm = segment_lps_mm(read_back(segmentation), 1)
    np.testing.assert_allclose(in_order(told_mm), in_order(object_lps_mm(instances)), atol=0.01)


def test_highdicom_finds_the_mask_by_the_slices_it_was_made_on():
    instances = series("sagittal", "descending")
    segmentation = segmented(mask_of("sagittal"), headers_of(instances))

    read = hd.seg.Segmentation.from_dataset(read_back(segmentation))
    planes = read.get_pixels_by_source_instance(
        [instance.SOPInstanceUID for instance in instances],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )

    np.testing.assert_array_equal(planes, [instance.pixel_array > 500 for instance in instances])


VARIANTS = {
    "of clicks": lambda: segmentation_of_two(),
    "drawn": lambda: segmentation_of_two(origins=DRAWN, codes={}),
    "by the network": lambda: segmentation_of_two(origins=dict.fromkeys(LABELS, SegmentOrigin("AUTOMATIC"))),
    "de-identified": lambda: segmentation_of_two(headers=without_optional("axial")),
    "of many frames": lambda: read_back(
        segmented(mask_of("oblique"), [enhanced(series("oblique"))], origins=ORIGINS, codes=CODES)
    ),
}


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
    mask = mask_of("axial", 2 * mask_of("axial").array)

    segmentation = read_back(segmented(mask))

    assert [(s.SegmentNumber, s.SegmentLabel) for s in segmentation.SegmentSequence] == [(1, "cyst")]
    assert len(segment_lps_mm(segmentation, 1)) == np.count_nonzero(mask.array)


def test_empty_mask_is_refused():
    with pytest.raises(SegmentationError, match="The mask is empty"):
        segmented(mask_of("axial", np.zeros(SHAPE)))


def test_same_mask_has_the_same_uids_and_another_mask_or_origin_others():
    headers = headers_of(series("axial", "ascending"))
    other = mask_of("axial")
    other.array[0, 0, 0] = 1

    def uids(mask, **options):
        segmentation = segmented(mask, headers, **options)
        return segmentation.SOPInstanceUID, segmentation.SeriesInstanceUID

    mask = mask_of("axial")
    first = uids(mask)
    others = [uids(other), uids(mask, labels={"tumour": 1}), uids(mask, origins=ORIGINS), uids(mask, codes=CODES)]

    assert first == uids(mask_of("axial"))
    assert len({uid for pair in [first, *others] for uid in pair}) == 10
