import numpy as np
import pytest

from lib.clickmask.click_influence import NUGGET, click_influence, click_shift

SHAPE = (21, 21, 21)
NONE = np.empty((0, 3), int)
EVEN = np.zeros(SHAPE)
MASK = np.zeros(SHAPE, dtype=bool)
MASK[:8] = True
PARAMETERS = {"reach": 0.75, "tolerance": 0.1}


def test_it_is_one_at_every_click_and_falls_off_with_the_distance():
    clicks = np.array([[12, 10, 10], [14, 3, 3]])

    influence = click_influence(EVEN, MASK, clicks, NONE, (1, 1, 1), **PARAMETERS)

    assert influence[tuple(clicks.T)].tolist() == [1, 1]
    assert (np.diff(influence[12, 10, 10:]) < 0).all()


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (6.5, 0.8, 0.8)])
@pytest.mark.parametrize("distance", [2, 4, 9])
def test_it_reaches_as_far_as_the_border_of_the_mask_is_away(distance, spacing_mm):
    """At the nearest voxel of the other side it is the Gaussian of 1 / reach, whatever that distance."""
    click = np.array([[7 + distance, 10, 10]])

    influence = click_influence(EVEN, MASK, click, NONE, spacing_mm, **PARAMETERS)

    assert influence[7, 10, 10] == pytest.approx(np.exp(-0.5 / 0.75**2), rel=1e-5)


def test_it_ends_half_way_to_a_click_that_says_the_opposite():
    click, opposite = np.array([[15, 10, 10]]), np.array([[15, 14, 10], [3, 3, 3]])

    influence = click_influence(EVEN, MASK, click, opposite, (1, 1, 1), **PARAMETERS)

    assert influence[15, 12, 10] == pytest.approx(np.exp(-0.5 / 0.75**2), rel=1e-5)


@pytest.mark.filterwarnings("error")
def test_clicks_of_both_kinds_in_one_coarse_voxel_leave_it_to_the_rest():
    click = np.array([[15, 10, 10]])
    assert not click_influence(EVEN, MASK, click, click, (1, 1, 1), **PARAMETERS).any()


def test_distances_are_in_mm():
    influence = click_influence(EVEN, MASK, np.array([[12, 10, 10]]), NONE, (1.0, 1.0, 2.5), **PARAMETERS)

    assert influence[12, 15, 10] == pytest.approx(influence[12, 10, 12], rel=1e-5)


def test_it_stops_where_the_intensity_changes():
    values = EVEN.copy()
    values[:, 12:] = 0.5

    influence = click_influence(values, MASK, np.array([[12, 10, 10]]), NONE, (1, 1, 1), **PARAMETERS)

    assert influence[12, 8, 10] > 0.8
    assert influence[12, 12, 10] < 1e-4


def test_background_clicks_inside_a_mask_work_alike():
    click = np.array([[5, 10, 10]])

    np.testing.assert_allclose(
        click_influence(EVEN, MASK, click, NONE, (1, 1, 1), **PARAMETERS),
        click_influence(EVEN, ~MASK, click, NONE, (1, 1, 1), **PARAMETERS),
    )


@pytest.mark.filterwarnings("error")
def test_without_clicks_or_without_a_border_there_is_none():
    assert not click_influence(EVEN, MASK, np.empty((0, 3), int), NONE, (1, 1, 1), **PARAMETERS).any()
    assert not click_influence(EVEN, np.ones(SHAPE, bool), np.array([[1, 1, 1]]), NONE, (1, 1, 1), **PARAMETERS).any()


# A smooth shift


def test_shift_is_about_what_a_click_wants_and_falls_off_by_the_reach_along_each_axis():
    click, reach = np.array([[10, 10, 10]]), np.array([2.0, 4.0, 4.0])

    shift = click_shift(SHAPE, click, np.array([1.0]), reach)

    assert shift[10, 10, 10] == shift.max() == pytest.approx(1 / (1 + NUGGET))
    assert shift[12, 10, 10] == pytest.approx(shift[10, 14, 10]) == pytest.approx(shift.max() * np.exp(-0.5))


def test_click_where_the_mask_is_right_stops_the_shift():
    clicks, reach = np.array([[10, 10, 10], [10, 13, 10]]), np.full(3, 3.0)

    alone = click_shift(SHAPE, clicks[:1], np.array([1.0]), reach)
    stopped = click_shift(SHAPE, clicks, np.array([1.0, 0.0]), reach)

    assert stopped[10, 10, 10] == pytest.approx(1, abs=0.1)
    assert abs(stopped[10, 13, 10]) < 0.1 < alone[10, 13, 10] / 5


@pytest.mark.parametrize("wanted", [(1, -1), (1, 1), (-1, 0)])
def test_clicks_side_by_side_give_a_bounded_shift(wanted):
    """Two clicks in one coarse voxel may even contradict each other."""
    clicks = np.array([[10, 10, 10], [10, 10, 10]])

    shift = click_shift(SHAPE, clicks, np.array(wanted, float), np.full(3, 3.0))

    assert np.abs(shift).max() <= 1
    assert shift[10, 10, 10] == pytest.approx(np.mean(wanted), abs=0.05)


def test_no_click_shifts_nothing():
    assert not click_shift(SHAPE, np.empty((0, 3), int), np.empty(0), np.full(3, 3.0)).any()
