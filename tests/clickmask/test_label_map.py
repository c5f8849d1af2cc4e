import numpy as np
import pytest

from lib.clickmask.label_map import merge_masks
from lib.geometry.boxes import Box

SPACING_MM = (1.0, 1.0, 5.0)


def merged_of(masks, clicks):
    """Of masks of one whole image."""
    shape = next(iter(masks.values())).shape
    boxed = {index: (Box((0, 0, 0), shape), mask) for index, mask in masks.items()}
    return merge_masks(boxed, clicks, SPACING_MM, shape)


def test_every_contested_voxel_goes_to_the_nearest_click_in_mm():
    """Against all distances, written out."""
    rng = np.random.default_rng(0)
    masks = {index: rng.random((7, 6, 5)) < 0.6 for index in (3, 1, 2)}
    clicks = {index: np.argwhere(mask)[rng.integers(mask.sum(), size=4)] for index, mask in masks.items()}

    merged = merged_of(masks, clicks)

    assert merged.dtype == np.uint8
    for voxel in np.ndindex(7, 6, 5):
        nearest_mm = {
            index: np.linalg.norm((clicks[index] - voxel) * SPACING_MM, axis=1).min()
            for index, mask in masks.items()
            if mask[voxel]
        }
        if nearest_mm:
            assert nearest_mm[merged[voxel]] == pytest.approx(min(nearest_mm.values()))
        else:
            assert merged[voxel] == 0


def test_clicks_stay_with_their_own_structure():
    both = np.ones((5, 5, 5), dtype=bool)
    clicks = {1: np.array([[0, 0, 0], [4, 4, 4]]), 2: np.array([[2, 2, 2]])}

    merged = merged_of({1: both, 2: both}, clicks)

    assert [merged[tuple(click)] for click in (*clicks[1], *clicks[2])] == [1, 1, 2]


def test_masks_of_boxes_are_those_of_the_image():
    rng = np.random.default_rng(1)
    boxes = {1: Box((0, 1, 0), (5, 6, 4)), 2: Box((3, 0, 2), (7, 5, 5))}
    boxed = {index: (box, rng.random(box.shape) < 0.7) for index, box in boxes.items()}
    whole = {index: np.zeros((7, 6, 5), dtype=bool) for index in boxes}
    for index, (box, mask) in boxed.items():
        whole[index][box.slices] = mask
    clicks = {1: np.array([[1, 2, 1]]), 2: np.array([[5, 2, 3]])}

    np.testing.assert_array_equal(merge_masks(boxed, clicks, SPACING_MM, (7, 6, 5)), merged_of(whole, clicks))


def test_no_masks_give_an_empty_map():
    assert not merge_masks({}, {}, SPACING_MM, (2, 3, 4)).any()
