"""Corrective clicks, trained networks and coarse grids in the mask from clicks."""

import numpy as np
import pytest
from scipy import ndimage

from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.click_mask_options import ClickMaskOptions
from lib.metrics import dice
from tests.clickmask.bodies import (
    ALL_SETTINGS,
    FINE,
    ISOTROPIC,
    Case,
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
    case = Case(image, truth)

    before, after = case.mask(), case.mask(with_more(case.points, [[34, 26, 20]]))

    assert before[lobe].mean() < 0.5
    assert after[lobe].mean() > before[lobe].mean() + 0.2
    assert dice(after, truth) > dice(before, truth)


def test_a_background_click_removes_what_it_stands_in():
    """A neighbour as bright as the structure, inside the box of the six clicks."""
    truth = ellipsoid((50, 40, 40), (22, 18, 20), (15, 9, 9)) | ellipsoid((50, 40, 40), (14, 27, 20), (7, 8, 6))
    neighbour = ellipsoid((50, 40, 40), (32, 29, 20), (6, 5, 5)) & ~truth
    case = Case(painted(truth | neighbour), truth)

    before, after = case.mask(), case.mask(with_more(case.points, background=[[32, 29, 20]]))

    assert before[neighbour].mean() > 0.5
    assert after[neighbour].mean() < 0.3
    assert dice(after, truth) > dice(before, truth)


@ALL_SETTINGS
def test_a_corrective_click_changes_the_mask_around_it_only(settings):
    case = demo(settings)
    click = np.argwhere(case.truth).mean(axis=0).astype(int)

    before, after = case.mask(), case.mask(with_more(case.points, background=[click]))

    changed = np.argwhere(before != after)
    depth_mm = ndimage.distance_transform_edt(before, sampling=case.spacing_mm)[tuple(click)]
    assert len(changed) > 0
    assert np.linalg.norm((changed - click) * case.spacing_mm, axis=1).max() < 3 * max(depth_mm, *case.spacing_mm)


def test_clicks_that_agree_with_the_mask_change_nothing():
    case = demo(ISOTROPIC)
    mask = case.mask()
    deep = np.argwhere(ndimage.binary_erosion(mask, iterations=3))[0]
    far = np.argwhere(~ndimage.binary_dilation(mask, iterations=6))[0]

    np.testing.assert_array_equal(case.mask(with_more(case.points, [deep], [far])), mask)


# --- A trained network


@ALL_SETTINGS
def test_a_networks_probability_helps(settings):
    case = demo(settings)
    points = clicks_on(case.truth, 3, 1.0)
    probability = np.clip(0.1 + 0.8 * ndimage.gaussian_filter(case.truth.astype(float), 0.5), 0, 1)

    together = case.mask(points, foreground_probability=probability)

    assert dice(together, case.truth) >= case.score(points) - 0.005
    assert obeys(together, points)


@ALL_SETTINGS
@pytest.mark.parametrize(("value", "weight"), [(0.5, 1.0), (0.0, 0.0), (1.0, 0.0)])
def test_a_network_that_knows_nothing_or_has_no_weight_changes_nothing(settings, value, weight):
    case = demo(settings)

    mask = case.mask(foreground_probability=np.full(case.image.shape, value), prior_weight=weight)

    np.testing.assert_array_equal(mask, case.mask())


@pytest.mark.parametrize("blind", [0.0, 1.0])
def test_clicks_are_obeyed_against_a_network_that_is_sure_and_wrong(blind):
    case = demo(ISOTROPIC)
    points = with_more(case.points, background=[np.argwhere(case.truth).min(axis=0)])

    mask = case.mask(points, foreground_probability=np.full(case.image.shape, blind))

    assert obeys(mask, points)
    assert dice(mask, case.truth) > 0.7


# --- Large structures


def test_what_lies_far_from_the_structure_does_not_matter():
    case = demo(ISOTROPIC)
    clicks = case.points.foreground_voxel
    assert (clicks >= 20).all() and (clicks + 20 <= case.image.shape).all(), "too near to the border for this test"

    larger = case._replace(image=np.pad(case.image, 40, constant_values=1e6))
    mask = larger.mask(ExtremePoints.from_clicks("lesion", clicks + 40))

    np.testing.assert_array_equal(mask[40:-40, 40:-40, 40:-40], case.mask())


@pytest.mark.parametrize("max_voxels", [30_000, 8_000])
def test_an_isolated_click_is_not_lost_between_coarse_voxels(max_voxels):
    truth = ellipsoid((60, 60, 60), (30, 30, 30), (20, 20, 20))
    points = with_more(clicks_on(truth), [[13, 13, 13], [46, 13, 47]])
    options = ClickMaskOptions(max_voxels=max_voxels, click_log_odds=0.0)

    mask = Case(painted(truth), truth).mask(points, options=options)

    assert obeys(mask, points)
    assert dice(mask, truth) > 0.9


@pytest.mark.parametrize("max_voxels", [30_000, 8_000])
def test_clicks_that_fall_outside_a_large_structure_still_hold_it(max_voxels):
    """Only the thin paths of the geodesics link such clicks to it, and coarse voxels must not break them."""
    truth = ellipsoid((80, 80, 80), (40, 40, 40), (20, 20, 20))
    clicks = [[13, 23, 35], [67, 57, 45], [55, 13, 25], [25, 67, 55], [30, 57, 13], [50, 23, 67]]
    points = ExtremePoints.from_clicks("lesion", np.array(clicks))

    assert Case(painted(truth), truth).score(points, options=ClickMaskOptions(max_voxels=max_voxels)) > 0.9


@pytest.mark.parametrize("max_voxels", [30_000, 8_000])
def test_coarser_voxels_give_nearly_the_same_mask_and_obey_all_clicks(max_voxels):
    case = demo(FINE, 1)
    beside_a_click = case.points.extremes_voxel[0, 0] - [1, 0, 0]  # in one coarse voxel with it
    apart = np.argwhere(case.truth).min(axis=0)
    points = with_more(case.points, [apart], [beside_a_click, apart + [0, 0, 1]])

    mask = case.mask(points, options=ClickMaskOptions(max_voxels=max_voxels))

    assert obeys(mask, points)
    assert dice(mask, case.mask(points)) > 0.9
