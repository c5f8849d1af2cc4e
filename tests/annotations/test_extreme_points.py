import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.annotations.extreme_points import ExtremePoints, assign_extremes

CLICKS = np.array([[1, 5, 5], [9, 5, 5], [5, 0, 5], [5, 8, 5], [5, 5, 2], [5, 5, 7]])


@pytest.mark.parametrize("order", list(itertools.permutations(range(6)))[::37])
def test_order_of_clicks_does_not_matter(order):
    found = ExtremePoints.from_clicks("lesion", CLICKS[list(order)]).extremes_voxel

    np.testing.assert_array_equal(found.reshape(6, 3), CLICKS)


def test_two_clicks_sharing_an_extreme_index_still_get_an_end_each():
    # Both of the first two lie at the lowest i; only the second is at the lowest j as well.
    clicks = np.array([[0, 4, 4], [0, 0, 4], [8, 4, 4], [4, 9, 4], [4, 4, 0], [4, 4, 9]])

    found = ExtremePoints.from_clicks("lesion", clicks).extremes_voxel

    assert found[0, 0].tolist() == [0, 4, 4]
    assert found[1, 0].tolist() == [0, 0, 4]


def test_seventh_click_inside_is_a_seed_and_no_extreme():
    points = ExtremePoints.from_clicks("lesion", np.vstack([[[5, 5, 5]], CLICKS]))

    assert points.extremes_voxel.reshape(6, 3).tolist() == CLICKS.tolist()
    assert points.foreground_voxel.tolist() == [[5, 5, 5], *CLICKS.tolist()]


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 3), min_size=6, max_size=12))
def test_every_end_has_a_click_of_its_own_and_the_sum_of_distances_is_least(clicks):
    clicks = np.array(clicks)
    assigned = assign_extremes(clicks).ravel()

    low, high = clicks.min(axis=0), clicks.max(axis=0)
    extent = np.maximum(high - low, 1)
    cost = np.stack([(clicks - low) / extent, (high - clicks) / extent], axis=-1).reshape(len(clicks), 6)
    assert len(set(assigned)) == 6
    if len(clicks) == 6:
        best = min(sum(cost[row, face] for face, row in enumerate(p)) for p in itertools.permutations(range(6)))
        assert cost[assigned, range(6)].sum() == pytest.approx(best)


def test_five_clicks_are_refused():
    with pytest.raises(ValueError, match="5 extreme points"):
        assign_extremes(CLICKS[:5])
