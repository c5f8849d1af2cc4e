"""The quality estimate is low for unstable masks."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.inference import quality
from lib.inference.quality import mask_quality, soft_dice
from lib.networks.checkpoint import TrainedModel
from lib.networks.spec import NetworkSpec

SHAPE = (24, 20, 16)


class Threshold(nn.Module):
    """Labels voxels brighter than 1, and none with a second label."""

    def forward(self, image):
        bright = 8 * (image - 1)
        return torch.cat([torch.zeros_like(image), bright, torch.full_like(image, -20)], dim=1)


def model(labels=("lesion", "cyst")):
    return TrainedModel(NetworkSpec.plan(labels, (1.0, 1.0, 1.0), (16, 16, 16), 2, 2), Threshold(), version=1)


def ball(radius):
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(SHAPE) / 2
    return np.linalg.norm(grid, axis=-1) <= radius


def quality_of(image, refined=None):
    voxels = torch.from_numpy(image.astype(np.float16))
    logits = Threshold()(voxels.float()[None, None])[0]
    probability = torch.softmax(logits, 0)[1:].half()
    drawn = (image > 1).astype(np.uint8)
    return mask_quality(model(), voxels, probability, drawn, drawn if refined is None else refined)


def test_clear_structure_is_better_than_specks():
    specks = np.random.default_rng(0).random(SHAPE) < 0.1

    assert quality_of(3.0 * ball(6)) > 0.4  # one of two labels has no voxels
    assert quality_of(3.0 * specks) < quality_of(3.0 * ball(3)) < quality_of(3.0 * ball(6)) <= 0.5


def test_mask_that_the_image_contradicts_is_worse():
    image, smaller = 3.0 * ball(6), ball(3).astype(np.uint8)

    assert quality_of(image, refined=smaller) < quality_of(image, refined=ball(6).astype(np.uint8))


def test_empty_mask_has_quality_0():
    assert quality_of(np.zeros(SHAPE)) == 0.0


def test_soft_dice(monkeypatch):
    one, other = torch.zeros(2, *SHAPE), torch.zeros(2, *SHAPE)
    one[0, :4], other[0, 2:6] = 1.0, 0.5

    expected = [2 * 2 * 0.5 / (4 + 4 * 0.5), 1.0]
    np.testing.assert_allclose(soft_dice(one, other), expected)
    monkeypatch.setattr(quality, "_SLAB_VOXELS", 1)
    assert soft_dice(one, other) == pytest.approx(expected)
