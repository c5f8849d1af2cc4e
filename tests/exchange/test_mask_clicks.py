"""Simulated extreme points of masks: on the structure, repeatable, one set for each label."""

import numpy as np
import pytest

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.exchange.click_records import ImportRefusedError
from lib.exchange.mask_clicks import read_mask_clicks
from tests.exchange.studies import GEOMETRIES, SHAPE, write_volume
from tests.physical import l_shape

INDICES = {"lesion": 1, "cyst": 2}


def exact(mask, rng):
    return simulated_extreme_points(mask, rng)


def shaky(mask, rng):
    return simulated_extreme_points(mask, rng, error_voxels=2.0)


@pytest.fixture
def mask(tmp_path):
    array = (l_shape() > 500).astype(np.uint8)
    array[18:22, 14:18, 2:6] = 2
    path = write_volume(tmp_path / "case.nii.gz", array, GEOMETRIES["flipped"])
    return array, path


def test_clicks_span_the_box_of_each_structure(mask):
    array, path = mask
    records = {record.label: record for record in read_mask_clicks(path, "case", INDICES, exact, seed=0)}

    assert set(records) == set(INDICES)
    for label, index in INDICES.items():
        clicks, voxels = np.array(records[label].points, int), np.argwhere(array == index)
        assert (array[tuple(clicks.T)] == index).all()
        np.testing.assert_array_equal(clicks.min(axis=0), voxels.min(axis=0))
        np.testing.assert_array_equal(clicks.max(axis=0), voxels.max(axis=0))


def test_clicks_depend_on_seed_image_and_label_and_not_on_other_labels(mask):
    def clicks(image="case", indices=INDICES, seed=3):
        return {record.label: record.points for record in read_mask_clicks(mask[1], image, indices, shaky, seed)}

    assert clicks() == clicks()
    assert clicks()["cyst"] == clicks(indices={"other": 1, "cyst": 2})["cyst"]
    for others in (clicks(seed=4), clicks(image="other")):
        assert others["lesion"] != clicks()["lesion"] and others["cyst"] != clicks()["cyst"]


def test_one_label_takes_every_value(mask):
    (record,) = read_mask_clicks(mask[1], "case", "tumour", lambda mask, rng: np.argwhere(mask), seed=0)

    assert record.label == "tumour"
    assert len(record.points) == np.count_nonzero(mask[0])


def test_structure_without_a_voxel_has_no_clicks(tmp_path):
    path = write_volume(tmp_path / "case.nii.gz", np.zeros(SHAPE, np.uint8), np.eye(4))

    assert list(read_mask_clicks(path, "case", INDICES, exact, seed=0)) == []


def test_value_of_no_label_is_refused(mask):
    with pytest.raises(ImportRefusedError, match="case.nii.gz: holds the value 2; expected 0, 1 for lesion"):
        list(read_mask_clicks(mask[1], "case", {"lesion": 1}, exact, seed=0))


def test_mask_with_a_value_that_is_no_number_is_refused(tmp_path):
    array = np.zeros(SHAPE, np.float32)
    array[3:6, 3:6, 3:6] = [1, np.nan, 1]
    path = write_volume(tmp_path / "case.nii.gz", array, np.eye(4))

    with pytest.raises(ImportRefusedError, match="case.nii.gz cannot be read .*not finite"):
        list(read_mask_clicks(path, "case", INDICES, exact, seed=0))
