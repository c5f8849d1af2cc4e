"""Training of a click network on accepted masks."""

import numpy as np
import pytest
import torch

from lib.clickmask.box_frame import SIDE, sample_positions
from lib.clickmask.click_network import network_input
from lib.clickmask.shape_atlas import Shape, ShapeAtlas
from lib.metrics import dice
from lib.training import click_network_training
from lib.training.click_network_training import (
    MIN_EXAMPLES_TO_HOLD_OUT,
    MIN_MASKS,
    SECONDS,
    ClickExample,
    seconds_by_label,
    train_click_network,
)
from tests.clickmask.bodies import blobs

SPACING_MM = (1.0, 0.5, 2.0)
INSIDE = (sample_positions() > 0) & (sample_positions() < 1)
NONE = np.empty((0, 3))


def grid_mm(shape=(34, 68, 18)):
    return [s * (np.arange(n) - (n - 1) / 2) for n, s in zip(shape, SPACING_MM, strict=True)]


def distance_mm():
    x, y, z = grid_mm()
    return np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)


BALL = distance_mm() <= 12


def example(mask=BALL, image=None):
    shape = Shape.of_mask(mask, np.diag([*SPACING_MM, 1.0]))
    return ClickExample.of(mask.astype(np.float32) if image is None else image, mask, SPACING_MM, shape)


def capped_ball(rng):
    """Make a ball without a corner, which has the same intensity as the ball."""
    centre = rng.uniform(-2, 2, 3)
    x, y, z = (line - c for line, c in zip(grid_mm(), centre, strict=True))
    radius = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)
    image = 1.0 * (radius <= 11) + rng.normal(0, 0.3, radius.shape)
    cap = (radius <= 11) & ~((x[:, None, None] > 3) & (y[:, None] > 3))
    return example(cap, image.astype(np.float32))


# Examples


def test_image_and_mask_are_transformed_alike():
    for seed in range(5):
        drawn = example().drawn(np.random.default_rng(seed))
        box = np.ix_(INSIDE, INSIDE, INSIDE)
        np.testing.assert_allclose(drawn.image[box], drawn.mask[box], atol=1e-5)
        assert drawn.image.shape == (SIDE, SIDE, SIDE)


def test_ball_stays_a_ball_in_mm_and_fills_its_box(monkeypatch):
    monkeypatch.setattr(click_network_training, "CLICK_ERROR_VOXELS", 0)
    monkeypatch.setattr(click_network_training, "MAX_LOG_SCALING", 0)
    monkeypatch.setattr(click_network_training, "MAX_ROTATION_DEG", 90)
    for seed in range(5):
        drawn = example().drawn(np.random.default_rng(seed))
        filled = drawn.mask[np.ix_(INSIDE, INSIDE, INSIDE)].mean()
        assert filled == pytest.approx(np.pi / 6, abs=0.04)


def test_clicks_lie_on_the_faces_of_their_box():
    drawn = example().drawn(np.random.default_rng(0))
    for axis in range(3):
        low, high = drawn.extremes[axis, :, axis]
        assert 0 < low < 0.1 and 0.9 < high < 1


def test_example_is_cropped_to_the_surroundings_of_the_structure():
    small = distance_mm() <= 3
    kept = example(small)

    assert kept.image.size < small.size / 4 and kept.mask.sum() == small.sum()


def test_specks_are_removed():
    specked = BALL.copy()
    specked[0, 0, 0] = True
    assert example(specked).mask.sum() == BALL.sum()


# Training


@pytest.mark.parametrize("count", [0, 1, MIN_MASKS - 1])
def test_few_masks_give_no_network(count):
    assert train_click_network([example()] * count, seconds=1) is None


@pytest.mark.slow
def test_network_learns_boundaries_without_contrast():
    rng = np.random.default_rng(0)
    learnt_from, unseen = ([capped_ball(rng) for _ in range(count)] for count in (6, 4))
    network = train_click_network(learnt_from, seconds=6)
    assert network is not None

    atlas = ShapeAtlas.of([e.shape for e in learnt_from])
    before, after = [], []
    for drawn in (e.drawn(rng) for e in unseen):
        inputs, log_odds = network_input(drawn.image, drawn.extremes, atlas, NONE, NONE)
        before.append(dice(log_odds > 0, drawn.mask > 0.5))
        after.append(dice(log_odds + network.correction(inputs) > 0, drawn.mask > 0.5))
    assert np.mean(after) > np.mean(before) + 0.01


@pytest.mark.parametrize("count", [MIN_MASKS, MIN_EXAMPLES_TO_HOLD_OUT])
def test_masks_without_a_common_shape_give_no_network(count, monkeypatch):
    monkeypatch.setattr(click_network_training, "_helps", lambda *_: True)

    assert train_click_network([example(mask) for mask in blobs(count)], seconds=0.3) is None
    assert train_click_network([example()] * count, seconds=0.3) is not None


def test_network_that_does_not_help_on_held_out_masks_is_not_used(monkeypatch):
    counts = []
    monkeypatch.setattr(click_network_training, "_helps", lambda _, held_out, *rest: counts.append(len(held_out)))

    assert train_click_network([example()] * MIN_EXAMPLES_TO_HOLD_OUT, seconds=0.3) is None
    assert train_click_network([example()] * (MIN_EXAMPLES_TO_HOLD_OUT - 1), seconds=0.3) is not None
    assert counts == [2]


@pytest.mark.parametrize("correction", [0, 8, -8])
def test_network_that_corrects_nothing_or_everything_does_not_help(correction):
    network = click_network_training.ClickNetwork()
    torch.nn.init.constant_(network.out.bias, correction)

    assert not click_network_training._helps(
        network, [example()], ShapeAtlas.of([example().shape]), np.random.default_rng(0)
    )


def test_weights_that_are_not_finite_are_not_used(monkeypatch, caplog):
    monkeypatch.setattr(click_network_training, "LEARNING_RATE", np.inf)

    assert train_click_network([example()] * MIN_MASKS, seconds=0.5) is None
    assert "infinite" in caplog.text


def test_global_random_state_does_not_change():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train_click_network([example()] * MIN_MASKS, seconds=0.3)

    assert torch.rand(1) == expected


# Time


@pytest.mark.parametrize(
    ("counts", "minutes", "expected"),
    [
        ({}, 5, {}),
        ({"lesion": 0}, 5, {}),
        ({"lesion": 3}, 5, {"lesion": SECONDS}),
        ({"lesion": 3}, 1, {"lesion": 12}),
        ({"few": 1, "most": 9, "some": 5}, 5, {"most": 45}),
        ({"few": 1, "most": 9, "some": 5}, 10, {"most": 45, "some": 45}),
        ({"few": 1, "most": 9}, 0, {"most": SECONDS, "few": SECONDS}),
    ],
)
def test_labels_with_most_new_masks_come_first(counts, minutes, expected):
    assert seconds_by_label(counts, minutes) == expected
