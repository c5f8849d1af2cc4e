"""The network that corrects click masks: what it sees, and that its correction lies in the patient."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.clickmask.box_frame import SIDE, sample_positions
from lib.clickmask.click_mask import segment_from_clicks
from lib.clickmask.click_mask_options import ClickMaskOptions
from lib.clickmask.click_network import INPUTS, ClickNetwork, click_blobs, network_input
from lib.clickmask.shape_atlas import Shape, ShapeAtlas, mirrored
from tests.clickmask.bodies import TURNS, clicks_on, lopsided, obeys, turned, with_more

BODY = lopsided()
ATLAS = ShapeAtlas.of([Shape.of_mask(BODY, np.eye(4))])
NONE = np.empty((0, 3))
OPTIONS = ClickMaskOptions()


def image_of(mask):
    return (100 + 40 * mask + np.random.default_rng(0).normal(0, 20, mask.shape)).astype(np.float32)


def some_network(scale=3.0):
    """With weights of chance, which corrects much."""
    torch.manual_seed(0)
    network = ClickNetwork().eval()
    with torch.no_grad():
        network.out.weight.normal_(0, scale)
    return network


def segmented(image, mask, affine, network, points=None, options=OPTIONS):
    points = points or ExtremePoints.from_clicks("body", simulated_extreme_points(mask))
    learnt = {"atlas": ATLAS, "network": network}
    return segment_from_clicks(image, points, (1, 1, 1), **learnt, affine_ras=affine, options=options)


def test_untrained_network_corrects_nothing():
    plain = replace(OPTIONS, net_share=0, smoothness=OPTIONS.corrected_smoothness)
    unbiased = replace(OPTIONS, corrected_bias=0)
    points = ExtremePoints.from_clicks("body", simulated_extreme_points(BODY))
    image = image_of(BODY)
    expected = segment_from_clicks(image, points, (1, 1, 1), atlas=ATLAS, affine_ras=np.eye(4), options=plain)

    found = segmented(image, BODY, np.eye(4), ClickNetwork().eval(), options=unbiased)
    np.testing.assert_array_equal(found, expected)


def test_correction_changes_the_mask():
    image = image_of(BODY)
    one, other = (segmented(image, BODY, np.eye(4), network) for network in (ClickNetwork().eval(), some_network()))
    assert (one != other).any()


@pytest.mark.slow
@pytest.mark.parametrize(("axes", "signs"), TURNS[::3])
def test_correction_lies_in_the_patient(axes, signs):
    mask, affine = turned(BODY, np.eye(4), axes, signs)
    image, _ = turned(image_of(BODY), np.eye(4), axes, signs)
    clicks = simulated_extreme_points(BODY)
    ras = np.c_[clicks, np.ones(6)]
    same = np.rint(ras @ np.linalg.inv(affine).T)[:, :3].astype(int)

    found = segmented(image, mask, affine, some_network(), ExtremePoints.from_clicks("body", same))
    expected, _ = turned(segmented(image_of(BODY), BODY, np.eye(4), some_network()), np.eye(4), axes, signs)
    assert (found != expected).mean() < 0.002


def test_clicks_outweigh_the_network():
    points = with_more(clicks_on(BODY), np.argwhere(BODY)[::400], np.argwhere(~BODY)[::2000])

    assert obeys(segmented(image_of(BODY), BODY, np.eye(4), some_network(), points), points)


# Inputs


def frame_input(image=None, clicks_on=NONE, clicks_off=NONE, atlas=ATLAS):
    shape = Shape.of_mask(BODY, np.eye(4))
    return network_input(shape.mask if image is None else image, shape.extremes, atlas, clicks_on, clicks_off)


def test_inputs_do_not_depend_on_the_scale_of_intensities():
    image = np.random.default_rng(0).normal(size=(SIDE,) * 3).astype(np.float32)

    one, other = (frame_input(i)[0] for i in (image, 1000 + 70 * image))
    assert one.shape == (INPUTS, SIDE, SIDE, SIDE) and one.dtype == np.float32
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_inputs_are_log_odds_and_blobs_of_clicks():
    on, off = np.full((1, 3), 0.5), np.array([[0.1, 0.9, 0.2]])
    (before, log_odds), (after, _) = frame_input(), frame_input(clicks_on=on, clicks_off=off)

    np.testing.assert_allclose(before[2] * 5, log_odds, rtol=1e-5)
    np.testing.assert_array_equal(before[4], 0)
    np.testing.assert_allclose(after[3], np.maximum(before[3], click_blobs(on)))
    np.testing.assert_array_equal(after[4], click_blobs(off))
    extremes = Shape.of_mask(BODY, np.eye(4)).extremes.reshape(6, 3)
    np.testing.assert_array_equal(before[3], click_blobs(extremes))


def test_blob_is_highest_at_its_click():
    index = (5, 17, 11)
    blob = click_blobs(sample_positions()[np.array([index])])

    assert blob[index] == pytest.approx(1) and np.unravel_index(blob.argmax(), blob.shape) == index
    assert blob.sum() < 30 and not click_blobs(NONE).any()


def test_prior_is_that_of_the_mirrored_atlas_on_the_other_side():
    shape = Shape.of_mask(BODY, np.eye(4))
    both = ShapeAtlas.mean_of([shape], 2.0, mirrors=True)
    flat = np.zeros((SIDE,) * 3, np.float32)

    (one, _), (other, _) = (
        network_input(flat, extremes, both, NONE, NONE) for extremes in (shape.extremes, mirrored(shape.extremes, (0,)))
    )
    np.testing.assert_allclose(other[1], one[1][::-1], atol=1e-4)


def test_digest_tells_weights_apart():
    assert some_network(1).digest == some_network(1).digest != some_network(2).digest
