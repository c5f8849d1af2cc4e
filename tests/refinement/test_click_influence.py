import numpy as np
import pytest

from lib.refinement.click_influence import click_influence

SHAPE = (21, 21, 21)
EVEN = np.zeros(SHAPE)
MASK = np.zeros(SHAPE, dtype=bool)
MASK[:8] = True
PARAMETERS = {"reach": 0.75, "tolerance": 0.1}


def test_it_is_one_at_every_click_and_falls_off_with_the_distance():
    clicks = np.array([[12, 10, 10], [14, 3, 3]])

    influence = click_influence(EVEN, MASK, clicks, (1, 1, 1), **PARAMETERS)

    assert influence[tuple(clicks.T)].tolist() == [1, 1]
    assert (np.diff(influence[12, 10, 10:]) < 0).all()


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (6.5, 0.8, 0.8)])
@pytest.mark.parametrize("distance", [2, 4, 9])
def test_it_reaches_as_far_as_the_border_of_the_mask_is_away(distance, spacing_mm):
    """At the nearest voxel of the other side it is the Gaussian of 1 / reach, whatever that distance."""
    click = np.array([[7 + distance, 10, 10]])

    influence = click_influence(EVEN, MASK, click, spacing_mm, **PARAMETERS)

    assert influence[7, 10, 10] == pytest.approx(np.exp(-0.5 / 0.75**2), rel=1e-5)


def test_distances_are_in_mm():
    influence = click_influence(EVEN, MASK, np.array([[12, 10, 10]]), (1.0, 1.0, 2.5), **PARAMETERS)

    assert influence[12, 15, 10] == pytest.approx(influence[12, 10, 12], rel=1e-5)


def test_it_stops_where_the_intensity_changes():
    values = EVEN.copy()
    values[:, 12:] = 0.5

    influence = click_influence(values, MASK, np.array([[12, 10, 10]]), (1, 1, 1), **PARAMETERS)

    assert influence[12, 8, 10] > 0.8
    assert influence[12, 12, 10] < 1e-4


def test_background_clicks_inside_a_mask_work_alike():
    click = np.array([[5, 10, 10]])

    np.testing.assert_allclose(
        click_influence(EVEN, MASK, click, (1, 1, 1), **PARAMETERS),
        click_influence(EVEN, ~MASK, click, (1, 1, 1), **PARAMETERS),
    )


@pytest.mark.filterwarnings("error")
def test_without_clicks_or_without_a_border_there_is_none():
    assert not click_influence(EVEN, MASK, np.empty((0, 3), int), (1, 1, 1), **PARAMETERS).any()
    assert not click_influence(EVEN, np.ones(SHAPE, bool), np.array([[1, 1, 1]]), (1, 1, 1), **PARAMETERS).any()
