"""Corrective clicks, trained networks and coarse grids in the mask from clicks."""

import numpy as np
import pytest
from scipy import ndimage

from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.click_mask import segment_from_clicks
from lib.clickmask.click_mask_options import ClickMaskOptions
from lib.metrics import dice
from tests.clickmask.bodies import (
    ALL_SETTINGS,
    FINE,
    ISOTROPIC,
    clicks_on,
    demo,
    ellipsoid,
    obeys,
    painted,
    with_more,
)

pytestmark = pytest.mark.filterwarnings("error")


# --- Corrective clicks


def test_a_foreground_click_adds_what_it_stands_in():
    """A lobe of another intensity, as the surroundings', that six clicks on the whole do not bring in."""
    body = ellipsoid((50, 40, 40), (20, 20, 20), (12, 9, 9))
    lobe = ellipsoid((50, 40, 40), (33, 26, 20), (8, 7, 6)) & ~body
    image = painted(body | lobe)
    image[lobe] -= 182
    truth = body | lobe
    points = clicks_on(truth)

    before = segment_from_clicks(image, points, (1, 1, 1))
    after = segment_from_clicks(image, with_more(points, [[34, 26, 20]]), (1, 1, 1))

    assert before[lobe].mean() < 0.5
    assert after[lobe].mean() > before[lobe].mean() + 0.2
    assert dice(after, truth) > dice(before, truth)


def test_a_background_click_removes_what_it_stands_in():
    """A neighbour as bright as the structure, inside the box of the six clicks."""
    truth = ellipsoid((50, 40, 40), (22, 18, 20), (15, 9, 9)) | ellipsoid((50, 40, 40), (14, 27, 20), (7, 8, 6))
    neighbour = ellipsoid((50, 40, 40), (32, 29, 20), (6, 5, 5)) & ~truth
    image = painted(truth | neighbour)
    points = clicks_on(truth)

    before = segment_from_clicks(image, points, (1, 1, 1))
    after = segment_from_clicks(image, with_more(points, background=[[32, 29, 20]]), (1, 1, 1))

    assert before[neighbour].mean() > 0.5
    assert after[neighbour].mean() < 0.3
    assert dice(after, truth) > dice(before, truth)


@ALL_SETTINGS
def test_a_corrective_click_changes_the_mask_around_it_only(settings):
    image, truth, spacing_mm = demo(settings)
    points = clicks_on(truth)
    click = np.argwhere(truth).mean(axis=0).astype(int)

    before = segment_from_clicks(image, points, spacing_mm)
    after = segment_from_clicks(image, with_more(points, background=[click]), spacing_mm)

    changed = np.argwhere(before != after)
    depth_mm = ndimage.distance_transform_edt(before, sampling=spacing_mm)[tuple(click)]
    assert len(changed) > 0
    assert np.linalg.norm((changed - click) * spacing_mm, axis=1).max() < 3 * max(depth_mm, max(spacing_mm))


def test_clicks_that_agree_with_the_mask_change_nothing():
    image, truth, spacing_mm = demo(ISOTROPIC)
    points = clicks_on(truth)
    mask = segment_from_clicks(image, points, spacing_mm)
    deep = np.argwhere(ndimage.binary_erosion(mask, iterations=3))[0]
    far = np.argwhere(~ndimage.binary_dilation(mask, iterations=6))[0]

    np.testing.assert_array_equal(segment_from_clicks(image, with_more(points, [deep], [far]), spacing_mm), mask)


# --- A trained network


@ALL_SETTINGS
def test_a_networks_probability_helps(settings):
    image, truth, spacing_mm = demo(settings)
    points = clicks_on(truth, 3, 1.0)
    probability = np.clip(0.1 + 0.8 * ndimage.gaussian_filter(truth.astype(float), 0.5), 0, 1)

    alone = segment_from_clicks(image, points, spacing_mm)
    together = segment_from_clicks(image, points, spacing_mm, foreground_probability=probability)

    assert dice(together, truth) >= dice(alone, truth) - 0.005
    assert obeys(together, points)


@ALL_SETTINGS
def test_a_network_that_knows_nothing_changes_nothing(settings):
    image, truth, spacing_mm = demo(settings)
    points = clicks_on(truth)

    undecided = segment_from_clicks(image, points, spacing_mm, foreground_probability=np.full(image.shape, 0.5))

    np.testing.assert_array_equal(undecided, segment_from_clicks(image, points, spacing_mm))


@pytest.mark.parametrize("blind", [0.0, 1.0])
def test_clicks_are_obeyed_against_a_network_that_is_sure_and_wrong(blind):
    image, truth, spacing_mm = demo(ISOTROPIC)
    points = with_more(clicks_on(truth), background=[np.argwhere(truth).min(axis=0)])

    mask = segment_from_clicks(image, points, spacing_mm, foreground_probability=np.full(image.shape, blind))

    assert obeys(mask, points)
    assert dice(mask, truth) > 0.7


@pytest.mark.parametrize("blind", [0.0, 1.0])
def test_network_of_prior_weight_0_changes_nothing(blind):
    truth = ellipsoid((40, 40, 40), (20, 20, 20), (8, 7, 9))
    image, points = painted(truth), clicks_on(truth)

    alone = segment_from_clicks(image, points, (1, 1, 1))
    beside_it = segment_from_clicks(
        image, points, (1, 1, 1), foreground_probability=np.full(image.shape, blind), prior_weight=0.0
    )

    np.testing.assert_array_equal(beside_it, alone)


# --- Large structures


def test_what_lies_far_from_the_structure_does_not_matter():
    image, truth, spacing_mm = demo(ISOTROPIC)
    points = clicks_on(truth)
    moved = ExtremePoints.from_clicks("lesion", points.foreground_voxel + 40)
    larger = np.pad(image, 40, constant_values=1e6)

    mask = segment_from_clicks(larger, moved, spacing_mm)

    low, high = points.foreground_voxel.min(axis=0) - 20, points.foreground_voxel.max(axis=0) + 20
    if (low < 0).any() or (high > image.shape).any():
        pytest.fail("the lesion lies too near to the border for this test")
    np.testing.assert_array_equal(mask[40:-40, 40:-40, 40:-40], segment_from_clicks(image, points, spacing_mm))


@pytest.mark.parametrize("max_voxels", [30_000, 8_000])
def test_an_isolated_click_is_not_lost_between_coarse_voxels(max_voxels):
    truth = ellipsoid((60, 60, 60), (30, 30, 30), (20, 20, 20))
    points = with_more(clicks_on(truth), [[13, 13, 13], [46, 13, 47]])
    options = ClickMaskOptions(max_voxels=max_voxels, click_log_odds=0.0)

    mask = segment_from_clicks(painted(truth), points, (1, 1, 1), options=options)

    assert obeys(mask, points)
    assert dice(mask, truth) > 0.9


@pytest.mark.parametrize("max_voxels", [30_000, 8_000])
def test_clicks_that_fall_outside_a_large_structure_still_hold_it(max_voxels):
    """Only the thin paths of the geodesics link such clicks to it, and coarse voxels must not break them."""
    truth = ellipsoid((80, 80, 80), (40, 40, 40), (20, 20, 20))
    clicks = [[13, 23, 35], [67, 57, 45], [55, 13, 25], [25, 67, 55], [30, 57, 13], [50, 23, 67]]
    points = ExtremePoints.from_clicks("lesion", np.array(clicks))

    mask = segment_from_clicks(painted(truth), points, (1, 1, 1), options=ClickMaskOptions(max_voxels=max_voxels))

    assert dice(mask, truth) > 0.9


@pytest.mark.parametrize("max_voxels", [30_000, 8_000])
def test_coarser_voxels_give_nearly_the_same_mask_and_obey_all_clicks(max_voxels):
    image, truth, spacing_mm = demo(FINE, 1)
    points = clicks_on(truth)
    beside_a_click = points.extremes_voxel[0, 0] - [1, 0, 0]  # in one coarse voxel with it
    apart = np.argwhere(truth).min(axis=0)
    points = with_more(points, [apart], [beside_a_click, apart + [0, 0, 1]])

    mask = segment_from_clicks(image, points, spacing_mm, options=ClickMaskOptions(max_voxels=max_voxels))

    assert obeys(mask, points)
    assert dice(mask, segment_from_clicks(image, points, spacing_mm)) > 0.9
