"""Agreement of a mask with six clicks: in clear cases, a better mask has a higher score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.geometry.boxes import Box
from lib.supervision.geodesics import extreme_point_geodesics
from lib.training.click_facts import ClickFacts
from tests.training.phantoms import clicks

SHAPE = (30, 28, 26)
SPACING_MM = (1.0, 1.0, 2.0)
CENTRE = (16, 15, 14)
EMPTY = np.zeros(SHAPE, bool)


def ellipsoid(radii):
    grid = np.ogrid[tuple(map(slice, SHAPE))]
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, CENTRE, radii, strict=True)) <= 1


def facts(mask, truth, margin=4):
    points = clicks("lesion", truth)
    paths = extreme_point_geodesics(np.zeros(SHAPE), points.extremes_voxel, SPACING_MM)
    return ClickFacts.of(mask, points, paths, margin)


def score(mask, truth, margin=4):
    return facts(mask, truth, margin).score


def half(truth, axis):
    kept = np.moveaxis(truth.copy(), axis, 0)
    kept[CENTRE[axis] :] = False
    return np.moveaxis(kept, 0, axis)


def with_speck(mask):
    speck = mask.copy()
    speck[1:3, 1:3, 1:3] = True
    return speck


def shell(truth):
    """Return the outermost voxels of the truth."""
    inside = np.pad(truth, 1)
    for axis in range(3):
        inside &= np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
    return truth & ~inside[1:-1, 1:-1, 1:-1]


RADII = st.tuples(*[st.integers(4, 7)] * 3)
AXES = st.integers(0, 2)
cases = settings(max_examples=15, deadline=None)


@cases
@given(RADII, AXES, AXES)
def test_truth_is_better_than_shifted_than_half_than_nothing(radii, shifted_along, cut_along):
    truth = ellipsoid(radii)
    scores = [score(mask, truth) for mask in (truth, np.roll(truth, 1, shifted_along), half(truth, cut_along), EMPTY)]

    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4
    assert scores[-1] == 0


@cases
@given(RADII)
def test_score_decreases_with_the_shift(radii):
    truth = ellipsoid(radii)
    scores = [score(np.roll(truth, steps, axis=0), truth) for steps in range(radii[0])]

    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)


@cases
@given(RADII, st.integers(1, 3))
def test_too_large_and_too_small_are_worse_than_right(radii, by):
    truth = ellipsoid(radii)

    assert score(ellipsoid(np.add(radii, by)), truth) < score(truth, truth)
    assert score(ellipsoid(np.subtract(radii, by)), truth) < score(truth, truth)
    assert score(np.ones(SHAPE, bool), truth) < score(truth, truth)


@cases
@given(RADII)
def test_distant_speck_lowers_the_score_a_little(radii):
    truth = ellipsoid(radii)

    masks = (with_speck(EMPTY), half(truth, 0), with_speck(truth), truth)
    scores = [score(mask, truth) for mask in masks]
    assert scores == sorted(scores) and len(set(scores)) == 4


@cases
@given(RADII)
def test_mask_with_the_right_ends_only_is_not_better_than_the_truth(radii):
    truth = ellipsoid(radii)
    points = EMPTY.copy()
    points[tuple(clicks("lesion", truth).foreground_voxel.T)] = True

    assert score(shell(truth), truth) <= score(truth, truth)
    assert score(points, truth) <= score(truth, truth)


@cases
@given(RADII, st.integers(0, 2**32 - 1))
def test_every_value_is_in_its_range_for_any_mask(radii, seed):
    rng = np.random.default_rng(seed)
    found = facts(rng.random(SHAPE) < rng.random(), ellipsoid(radii))

    for value in (found.score, found.box_overlap, found.geodesics_covered, found.faces_covered, found.outside):
        assert 0 <= value <= 1


TRUTH = ellipsoid((7, 6, 5))


def test_facts_of_the_truth():
    found = facts(TRUTH, TRUTH)

    assert (found.box_overlap, found.outside) == (1, 0)
    assert found.geodesics_covered == pytest.approx(1, abs=0.1)
    assert found.faces_covered < 0.1


def test_facts_of_an_empty_mask():
    assert facts(EMPTY, TRUTH) == ClickFacts(0.0, 0.0, 0.0, 1.0)


def test_mask_that_fills_the_box_covers_its_faces():
    box = EMPTY.copy()
    box[Box.around(clicks("lesion", TRUTH).foreground_voxel).slices] = True
    found = facts(box, TRUTH)

    assert (found.box_overlap, found.geodesics_covered, found.faces_covered, found.outside) == (1, 1, 1, 0)
    assert found.score == 0


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("end", [0, -1])
def test_each_face_has_a_weight_of_a_sixth(axis, end):
    face = EMPTY.copy()
    tight = Box.around(clicks("lesion", TRUTH).foreground_voxel)
    inside = np.moveaxis(face[tight.slices], axis, 0)
    inside[end, 1:-1, 1:-1] = True

    assert facts(face, TRUTH).faces_covered == pytest.approx(inside[end].mean() / 6)


def test_distant_speck_is_outside_and_does_not_change_the_ends():
    found = facts(with_speck(TRUTH), TRUTH)

    assert found.box_overlap == 1
    assert found.outside == pytest.approx(8 / (8 + TRUTH.sum()))


def test_mask_outside_the_relaxed_box_has_no_ends():
    found = facts(with_speck(EMPTY), TRUTH)

    assert (found.box_overlap, found.outside) == (0, 1)


@pytest.mark.parametrize("beyond", [1, 2])
def test_clicks_beyond_the_image_by_rounding_are_moved_to_its_border(beyond):
    # The last voxels of a scan may lie outside the network's grid.
    truth = np.zeros(SHAPE, bool)
    truth[-6:, 10:20, 10:20] = True
    points = clicks("lesion", truth)
    paths = extreme_point_geodesics(np.zeros(SHAPE), points.extremes_voxel, SPACING_MM)

    cut = truth[:-beyond]
    found = ClickFacts.of(cut, points, paths, 4)

    assert found.box_overlap == pytest.approx((6 - beyond) / 6)
