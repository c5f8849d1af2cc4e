import numpy as np
import pytest

from lib.refinement.label_map import merge_masks

SPACING_MM = (1.0, 1.0, 5.0)


def block(shape, *slices):
    mask = np.zeros(shape, dtype=bool)
    mask[slices] = True
    return mask


def test_masks_apart_keep_their_voxels():
    masks = {1: block((8, 8, 8), slice(0, 3)), 4: block((8, 8, 8), slice(5, 8))}

    merged = merge_masks(masks, {1: np.array([[1, 1, 1]]), 4: np.array([[6, 1, 1]])}, SPACING_MM)

    assert merged.dtype == np.uint8
    np.testing.assert_array_equal(merged, 1 * masks[1] + 4 * masks[4])


def test_every_contested_voxel_goes_to_the_nearest_click_in_mm():
    """Against all distances, written out."""
    rng = np.random.default_rng(0)
    masks = {index: rng.random((7, 6, 5)) < 0.6 for index in (3, 1, 2)}
    clicks = {index: np.argwhere(mask)[rng.integers(mask.sum(), size=4)] for index, mask in masks.items()}

    merged = merge_masks(masks, clicks, SPACING_MM)

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


def test_thick_slices_count_as_far():
    both = np.ones((3, 3, 3), dtype=bool)

    merged = merge_masks({1: both, 2: both}, {1: np.array([[1, 1, 0]]), 2: np.array([[1, 2, 2]])}, (1.0, 1.0, 5.0))

    assert merged[0, 0, 0] == 1
    assert merged[1, 1, 2] == 2, "two voxels away along x is nearer than one slice"


def test_clicks_stay_with_their_own_structure():
    both = np.ones((5, 5, 5), dtype=bool)
    clicks = {1: np.array([[0, 0, 0], [4, 4, 4]]), 2: np.array([[2, 2, 2]])}

    merged = merge_masks({1: both, 2: both}, clicks, SPACING_MM)

    assert [merged[tuple(click)] for click in (*clicks[1], *clicks[2])] == [1, 1, 2]


def test_a_structure_without_voxels_leaves_the_other():
    masks = {1: np.zeros((4, 4, 4), dtype=bool), 2: np.ones((4, 4, 4), dtype=bool)}

    merged = merge_masks(masks, {index: np.array([[1, 1, 1]]) for index in masks}, SPACING_MM)

    assert (merged == 2).all()


@pytest.mark.parametrize("masks", [{}, {1: np.ones((2, 2, 2), bool), 2: np.ones((2, 2, 3), bool)}])
def test_no_masks_or_masks_of_different_shapes_are_refused(masks):
    with pytest.raises(ValueError, match="all of one shape"):
        merge_masks(masks, {1: np.zeros((1, 3)), 2: np.zeros((1, 3))}, SPACING_MM)
