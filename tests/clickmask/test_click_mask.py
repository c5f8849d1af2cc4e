"""The mask from clicks, on demo studies, simple bodies, and one real scan."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import largest_component
from lib.clickmask.click_mask import segment_from_clicks
from lib.clickmask.click_mask_options import ClickMaskOptions
from lib.geometry.volume import load_volume
from lib.metrics import dice
from tests.clickmask.bodies import (
    ALL_SETTINGS,
    FINE,
    ISOTROPIC,
    THICK,
    clicks_on,
    demo,
    ellipsoid,
    obeys,
    painted,
    with_more,
)

BRAIN1 = Path(__file__).resolve().parents[3] / "shared" / "data" / "brain1"
BRAIN1_BAR = 0.69

pytestmark = pytest.mark.filterwarnings("error")


# --- How good it is


@pytest.mark.skipif(not BRAIN1.exists(), reason=f"the real scan is not there: {BRAIN1}")
@pytest.mark.parametrize("inverted, seeds", [(False, 50), (True, 10)], ids=["bright lesion", "dark lesion"])
def test_brain1_beats_every_simpler_method_for_every_choice_of_extreme_points(inverted, seeds):
    """Several voxels of the tumour share an extreme; whichever is clicked, the mask is better than a graph cut's."""
    volume = load_volume(BRAIN1 / "image.nrrd")
    truth = largest_component(load_volume(BRAIN1 / "label.nrrd").array > 0)
    image = volume.array.max() - volume.array if inverted else volume.array

    scores = [
        dice(segment_from_clicks(image, clicks_on(truth, seed), volume.geometry.spacing_mm), truth)
        for seed in range(seeds)
    ]

    assert min(scores) > BRAIN1_BAR + 0.1


@pytest.mark.parametrize(
    "settings, expected", [(ISOTROPIC, 0.93), (FINE, 0.9), (THICK, 0.8)], ids=["isotropic", "fine", "thick"]
)
@pytest.mark.parametrize("index", range(2))
def test_demo_studies_on_any_slice_thickness(settings, expected, index):
    image, truth, spacing_mm = demo(settings, index)

    assert dice(segment_from_clicks(image, clicks_on(truth), spacing_mm), truth) > expected


@pytest.mark.parametrize("error_voxels", [1.0, 2.0])
@pytest.mark.parametrize("settings", [ISOTROPIC, FINE], ids=["isotropic", "fine"])
def test_a_hand_that_errs_by_some_voxels_costs_little(settings, error_voxels):
    image, truth, spacing_mm = demo(settings)

    scores = [
        dice(segment_from_clicks(image, clicks_on(truth, seed, error_voxels), spacing_mm), truth) for seed in range(5)
    ]

    assert np.mean(scores) > dice(segment_from_clicks(image, clicks_on(truth), spacing_mm), truth) - 0.05


@ALL_SETTINGS
def test_a_dark_lesion_is_as_good_as_a_bright_one(settings):
    image, truth, spacing_mm = demo(settings)
    points = clicks_on(truth)

    bright = segment_from_clicks(image, points, spacing_mm)
    dark = segment_from_clicks(image.max() - image, points, spacing_mm)

    assert dice(bright, dark) > 0.99


# --- Structures that are not round


def voxels(shape):
    return np.moveaxis(np.indices(shape), 0, -1)


def rod(shape=(44, 44, 36), radius=2.3):
    """Askew to all axes, so that its box is nearly empty."""
    line = [6, 8, 7] + np.linspace(0, 1, 60)[:, None] * [30, 26, 20]
    return np.min([((voxels(shape) - place) ** 2).sum(axis=-1) for place in line], axis=0) <= radius**2


def arc(shape=(44, 44, 36), radius=2.3):
    """Like a rib: bent, and rising."""
    along = np.linspace(0, 1, 60)
    line = np.stack([22 - 15 * np.cos(0.9 * np.pi * along), 10 + 22 * np.sin(0.9 * np.pi * along), 8 + 18 * along], 1)
    return np.min([((voxels(shape) - place) ** 2).sum(axis=-1) for place in line], axis=0) <= radius**2


def cap(shape=(44, 44, 36)):
    """A piece of a shell, like a bone of the skull."""
    from_centre = np.linalg.norm(voxels(shape) - [22, 22, 2], axis=-1)
    return (np.abs(from_centre - 18) <= 1.6) & (voxels(shape)[..., 2] > 11)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.8, 0.8, 2.5)], ids=["isotropic", "thick"])
@pytest.mark.parametrize("inside, outside", [(300, 100), (100, 300)], ids=["bright", "dark"])
@pytest.mark.parametrize("body", [rod, arc, cap])
def test_a_thin_structure_is_not_taken_for_a_thick_one(body, inside, outside, spacing_mm):
    truth = body()
    image, points = painted(truth, inside, outside, noise=50), clicks_on(truth)

    mask = segment_from_clicks(image, points, spacing_mm)
    without = segment_from_clicks(image, points, spacing_mm, options=ClickMaskOptions(net_share=0))

    assert dice(mask, truth) > 0.9
    assert dice(mask, truth) > dice(without, truth) + 0.1
    assert 0.8 < mask.sum() / truth.sum() < 1.2


@pytest.mark.parametrize("body", [rod, arc])
def test_a_thin_structure_beside_another_one(body):
    """Whose intensity is the same, inside the box."""
    truth = body()
    neighbour = np.roll(np.flip(truth, 0), 4, axis=2) & ~ndimage.binary_dilation(truth, iterations=3)
    image = painted(truth | neighbour, noise=30)

    mask = segment_from_clicks(image, clicks_on(truth), (1, 1, 1))

    assert dice(mask, truth) > 0.8
    assert mask[neighbour].mean() < 0.3


# --- What it obeys


@ALL_SETTINGS
@pytest.mark.parametrize("error_voxels", [0.0, 2.0])
def test_mask_obeys_every_click_and_hangs_together_with_them(settings, error_voxels):
    image, truth, spacing_mm = demo(settings)
    rng = np.random.default_rng(0)
    points = clicks_on(truth, 1, error_voxels)
    points = with_more(
        points,
        np.argwhere(truth)[rng.integers(truth.sum(), size=3)],
        np.argwhere(~truth)[rng.integers((~truth).sum(), size=5)],
    )

    mask = segment_from_clicks(image, points, spacing_mm)

    assert mask.dtype == bool and mask.shape == image.shape
    assert obeys(mask, points)
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert set(parts[tuple(points.foreground_voxel.T)]) == set(range(1, count + 1))


def test_clicks_against_all_evidence_are_obeyed():
    """Foreground clicks in the dark and background clicks in the middle of a bright ball, at any smoothness."""
    truth = ellipsoid((30, 30, 30), (15, 15, 15), (8, 8, 8))
    points = with_more(clicks_on(truth), [[5, 5, 5], [25, 6, 24]], [[15, 15, 15], [15, 15, 18]])

    for smoothness in (0.5, 4.0, 20.0):
        options = ClickMaskOptions(smoothness=smoothness)
        assert obeys(segment_from_clicks(painted(truth), points, (1, 1, 1), options=options), points)


def test_nothing_beyond_the_relaxed_box():
    image = painted(np.ones((40, 40, 40), bool))
    points = clicks_on(ellipsoid(image.shape, (20, 20, 20), (6, 5, 7)))

    voxels = np.argwhere(segment_from_clicks(image, points, (1, 1, 1)))

    margin = ClickMaskOptions().margin_voxels
    assert (voxels >= points.foreground_voxel.min(axis=0) - margin).all()
    assert (voxels <= points.foreground_voxel.max(axis=0) + margin).all()


def test_a_hole_is_filled_unless_a_background_click_stands_in_it():
    hole = ellipsoid((40, 40, 40), (20, 20, 20), (5, 5, 5))
    ring = ellipsoid((40, 40, 40), (20, 20, 20), (13, 13, 13)) & ~hole
    points = clicks_on(ring)

    sure_of_intensities = ClickMaskOptions(smoothness=0.5, intensity_weight=4.0)
    filled = segment_from_clicks(painted(ring), points, (1, 1, 1), options=sure_of_intensities)
    opened = segment_from_clicks(painted(ring), with_more(points, background=[[20, 20, 20]]), (1, 1, 1))

    assert filled[hole].all()
    assert opened[hole].mean() < 0.2
    assert dice(opened, ring) > 0.95


# --- Symmetry


@ALL_SETTINGS
@pytest.mark.parametrize("axis", range(3))
def test_flipping_an_axis_flips_the_mask(settings, axis):
    image, truth, spacing_mm = demo(settings)
    points = with_more(clicks_on(truth), background=[np.argwhere(truth).mean(axis=0).astype(int)])
    flip = points.background_voxel.copy(), points.foreground_voxel.copy()
    for clicks in flip:
        clicks[:, axis] = image.shape[axis] - 1 - clicks[:, axis]

    mask = segment_from_clicks(np.flip(image, axis), ExtremePoints.from_clicks("lesion", flip[1], flip[0]), spacing_mm)

    assert dice(np.flip(mask, axis), segment_from_clicks(image, points, spacing_mm)) > 0.995


@ALL_SETTINGS
@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 0, 1), (1, 2, 0)])
def test_permuting_the_axes_permutes_the_mask(settings, axes):
    image, truth, spacing_mm = demo(settings)
    points = clicks_on(truth)
    turned = ExtremePoints.from_clicks("lesion", points.foreground_voxel[:, axes])

    mask = segment_from_clicks(image.transpose(axes), turned, tuple(spacing_mm[a] for a in axes))

    assert dice(mask, segment_from_clicks(image, points, spacing_mm).transpose(axes)) > 0.995


# --- Unusual structures and images


@pytest.mark.parametrize("thickness", [1, 2])
@pytest.mark.parametrize("axis", range(3))
def test_a_structure_of_one_or_two_slices(axis, thickness):
    radii = [8.0, 8.0, 8.0]
    truth = ellipsoid((24, 24, 24), (12, 12, 12), radii)
    slices = [slice(None)] * 3
    slices[axis] = slice(12, 12 + thickness)
    flat = np.zeros_like(truth)
    flat[tuple(slices)] = truth[tuple(slices)]

    mask = segment_from_clicks(painted(flat), clicks_on(flat), (1, 1, 1))

    assert dice(mask, flat) > 0.9


def test_clicks_that_repeat_a_voxel():
    truth = np.zeros((20, 20, 20), bool)
    truth[6:14, 6:14, 6:14] = True
    points = ExtremePoints.from_clicks("lesion", np.array([[6, 6, 6]] * 3 + [[13, 13, 13]] * 3))

    mask = segment_from_clicks(painted(truth), points, (1, 1, 1))

    assert obeys(mask, points)
    assert dice(mask, truth) > 0.7


def test_all_clicks_on_one_voxel_of_a_tiny_image():
    points = ExtremePoints.from_clicks("lesion", np.zeros((6, 3), int))

    assert segment_from_clicks(np.ones((1, 1, 1)), points, (1, 1, 1)).tolist() == [[[True]]]


@pytest.mark.parametrize("centre", [(4, 20, 20), (20, 35, 20), (4, 4, 35)])
def test_a_structure_cut_by_the_border_of_the_image(centre):
    truth = ellipsoid((40, 40, 40), centre, (9, 8, 7))

    assert dice(segment_from_clicks(painted(truth), clicks_on(truth), (1, 1, 1)), truth) > 0.93


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_images_of_any_type(dtype):
    truth = ellipsoid((30, 30, 30), (15, 15, 15), (9, 7, 8))
    image = painted(truth, inside=180, outside=80).astype(dtype)

    assert dice(segment_from_clicks(image, clicks_on(truth), (1, 1, 1)), truth) > 0.93


def test_a_constant_image_gives_a_rounder_shape_than_the_box_of_the_clicks():
    truth = ellipsoid((30, 30, 30), (15, 15, 15), (9, 7, 8))
    box = np.zeros_like(truth)
    box[6:25, 8:23, 7:24] = True

    mask = segment_from_clicks(np.full(truth.shape, 7), clicks_on(truth), (1, 1, 1))

    assert dice(mask, truth) > dice(box, truth) + 0.1


@pytest.mark.parametrize("value", [1e9, -1e9])
def test_one_huge_outlier_does_not_matter(value):
    image, truth, spacing_mm = demo(ISOTROPIC)
    points = clicks_on(truth)
    broken = image.copy()
    broken[tuple(points.foreground_voxel[0] + [1, 1, 1])] = value

    assert dice(segment_from_clicks(broken, points, spacing_mm), segment_from_clicks(image, points, spacing_mm)) > 0.98


def test_scale_and_offset_of_the_intensities_do_not_matter():
    image, truth, spacing_mm = demo(FINE)
    points = clicks_on(truth)

    scaled = segment_from_clicks(image * 0.01 - 1000, points, spacing_mm)

    assert dice(scaled, segment_from_clicks(image, points, spacing_mm)) > 0.98


# --- What is refused


@pytest.mark.parametrize(
    "image_shape, probability_shape, foreground, background, message",
    [
        ((9, 9), None, [1, 1, 1], [2, 2, 2], r"image has shape \(9, 9\); expected \(X, Y, Z\)"),
        ((9, 9, 9), (9, 9, 8), [1, 1, 1], [2, 2, 2], r"foreground_probability has shape \(9, 9, 8\)"),
        ((9, 9, 9), None, [1, 9, 1], [2, 2, 2], r"foreground click \[1, 9, 1\] is outside"),
        ((9, 9, 9), None, [1, 1, 1], [-1, 2, 2], r"background click \[-1, 2, 2\] is outside"),
        ((9, 9, 9), None, [2, 2, 2], [2, 2, 2], r"voxel \[2, 2, 2\] is clicked as foreground and as background"),
    ],
)
def test_bad_input_is_refused(image_shape, probability_shape, foreground, background, message):
    points = ExtremePoints.from_clicks("lesion", np.array([foreground] + [[4, 4, 4]] * 5), np.array([background]))
    probability = None if probability_shape is None else np.zeros(probability_shape)

    with pytest.raises(ValueError, match=message):
        segment_from_clicks(np.zeros(image_shape), points, (1, 1, 1), foreground_probability=probability)
