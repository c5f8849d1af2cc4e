"""Segmentations of multi-frame, tilted and multi-volume series, and of other grids."""

import numpy as np
import pytest

from lib.exchange.series_frames import SegmentationError
from lib.geometry.dicom_series import read_series
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, load_volume
from tests.exchange.dicom_segs import (
    assert_valid,
    enhanced,
    headers_of,
    mask_of,
    read_back,
    segment_lps_mm,
    segmentation_that_lies_right,
    segmented,
)
from tests.geometry.dicom_files import copies, set_echo, tilted
from tests.geometry.dicom_files import frames as frames_of_one_file
from tests.physical import PLANES, SHAPE, SPACING_MM, object_lps_mm, series, share_in

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


def checked_sources(segmentation, together):
    """Check that each frame refers to the frame at its own position, and return the numbers of these from 0."""
    numbers = set()
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        of_source = together.PerFrameFunctionalGroupsSequence[source.ReferencedFrameNumber - 1]
        positions_mm = [np.array(of.PlanePositionSequence[0].ImagePositionPatient, float) for of in (groups, of_source)]
        np.testing.assert_allclose(*positions_mm, atol=1e-6)
        numbers.add(source.ReferencedFrameNumber - 1)
    return numbers


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
    checked_sources(segmentation, together)
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert float(measures.SpacingBetweenSlices) == pytest.approx(SPACING_MM[2])
    assert float(measures.SliceThickness) == pytest.approx(float(thickness or SPACING_MM[2]))


MOVED = [PLANES["axial"] + np.c_[np.zeros((4, 3)), [*move_mm, 0]] for move_mm in ([0.35, 0, 0], [7, 0, 0], [0, 0, 2.5])]
# All corners of a finer grid that are compared lie on voxels of the series.
FINER = PLANES["axial"] @ np.diag([0.5, 1, 1, 1])


@pytest.mark.parametrize(("affine_ras", "repeats"), [*((moved, 1) for moved in MOVED), (FINER, 2)])
def test_mask_on_another_grid_is_refused(affine_ras, repeats):
    array = np.repeat(mask_of("axial").array, repeats, axis=0)

    with pytest.raises(SegmentationError, match="is not on the grid of the series"):
        segmented(Volume(array, ImageGeometry(array.shape, affine_ras)))


def test_mask_beyond_the_slices_of_the_series_is_refused():
    with pytest.raises(SegmentationError, match="lies in none of the slices"):
        segmented(headers=headers_of(series("axial", "ascending"))[:5])


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

    segmentation = read_back(segmented(mask, headers_of(instances)))

    told_mm, object_mm = segment_lps_mm(segmentation, 1), object_lps_mm(instances)
    assert share_in(told_mm, object_mm) == share_in(object_mm, told_mm) == 1


def test_mask_beside_the_tilted_slices_is_left_out(tmp_path):
    instances = tilted(14)
    image = image_of(instances, tmp_path)
    everywhere = Volume(np.ones_like(image.array), image.geometry)

    segmentation = read_back(segmented(everywhere, headers_of(instances)))

    assert len(segment_lps_mm(segmentation, 1)) == np.prod(SHAPE)


def test_mask_of_tilted_slices_that_are_gone_is_refused(tmp_path):
    instances = tilted(14)
    image = image_of(instances, tmp_path)

    with pytest.raises(SegmentationError, match="lies in none of the slices"):
        segmented(Volume(np.ones_like(image.array), image.geometry), headers_of(instances[1:]))


def test_mask_of_one_of_several_volumes_refers_to_its_instances_alone():
    instances = copies(2, set_echo)
    own = instances[SHAPE[2] :]
    sources = [(instance.SOPInstanceUID, 0) for instance in own]

    segmentation = read_back(segmented(mask_of("oblique"), headers_of(instances), sources=sources))

    assert share_in(segment_lps_mm(segmentation, 1), object_lps_mm(own)) == 1
    (referred,) = segmentation.ReferencedSeriesSequence
    assert {i.ReferencedSOPInstanceUID for i in referred.ReferencedInstanceSequence} == {uid for uid, _ in sources}


@pytest.mark.parametrize("order", ["by volume", "by position"])
def test_mask_of_one_of_several_volumes_of_frames_refers_to_its_frames_alone(order, tmp_path):
    instances = copies(2, set_echo)
    if order == "by position":
        instances = [instances[n + SHAPE[2] * volume] for n in range(SHAPE[2]) for volume in range(2)]
    (together,) = frames_of_one_file(instances)
    ours = [n for n, instance in enumerate(instances) if instance.EchoTime == "9.2"]
    sources = [(together.SOPInstanceUID, n) for n in ours]

    segmentation = read_back(segmented(mask_of("oblique"), headers_of([together]), sources=sources))

    segmentation.save_as(tmp_path / "segmentation.dcm", write_like_original=False)
    assert_valid(tmp_path / "segmentation.dcm")
    assert share_in(object_lps_mm(series("oblique")), segment_lps_mm(segmentation, 1)) == 1
    assert checked_sources(segmentation, together) <= set(ours)
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert float(measures.SpacingBetweenSlices) == pytest.approx(SPACING_MM[2])


def test_mask_of_an_instance_that_is_gone_is_refused():
    with pytest.raises(SegmentationError, match="does not hold all slices of the image any more"):
        segmented(mask_of("oblique"), headers_of(copies(2, set_echo)), sources=[("1.2.9.9", 0)])
