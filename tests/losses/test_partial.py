"""The partial segmentation loss against loops over single voxels in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lib.losses.partial import UNKNOWN, PartialLoss

SHAPE = (4, 3, 2)
SMOOTH = 1e-5


def reference(logits: Tensor, target: Tensor, include_background: bool) -> dict[str, float]:
    """Dice, cross-entropy and focal of one patch, one annotated voxel after the other."""
    channels = logits.shape[0]
    voxels = [
        ([math.exp(float(value)) for value in logits[:, x, y, z].detach()], int(target[x, y, z]))
        for x, y, z in torch.cartesian_prod(*map(torch.arange, target.shape)).tolist()
        if target[x, y, z] != UNKNOWN
    ]
    voxels = [([value / sum(odds) for value in odds], label) for odds, label in voxels]
    present = sorted({label for _, label in voxels})
    dice, focal = [], []
    for c in range(channels):
        hits = sum(p[c] for p, label in voxels if label == c)
        sizes = sum(p[c] for p, _ in voxels) + sum(label == c for _, label in voxels)
        if c in present and (c or include_background):
            dice.append(1 - (2 * hits + SMOOTH) / (sizes + SMOOTH))
        if c in present:
            terms = [-((1 - p[c]) ** 2) * math.log(p[c]) for p, label in voxels if label == c]
            focal.append(sum(terms) / len(terms))
    return {
        "dice": sum(dice) / len(dice) if dice else 0.0,
        "cross_entropy": -sum(math.log(p[label]) for p, label in voxels) / len(voxels),
        "focal": sum(focal) / len(focal),
    }


def batch(channels: int, patches: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(channels)
    logits = 2 * torch.randn(patches, channels, *SHAPE, generator=generator)
    target = torch.randint(UNKNOWN, channels, (patches, *SHAPE), generator=generator)
    return logits.requires_grad_(), target


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("include_background", [True, False])
def test_terms_are_those_of_the_loops(channels, include_background):
    logits, target = batch(channels)
    loss = PartialLoss(include_background=include_background)
    expected = [reference(*patch, include_background) for patch in zip(logits.double(), target, strict=True)]
    for name, value in loss.terms(logits, target).items():
        assert value.item() == pytest.approx(sum(patch[name] for patch in expected) / 2, rel=1e-5)
    assert loss(logits, target).item() == pytest.approx(sum(sum(patch.values()) for patch in expected) / 2, rel=1e-5)


def test_a_full_mask_is_a_target_without_unknown():
    logits, target = batch(3, patches=1)
    target = target.clamp(min=0)
    expected = reference(logits[0].double(), target[0], include_background=True)
    assert PartialLoss()(logits, target).item() == pytest.approx(sum(expected.values()), rel=1e-5)


@pytest.mark.parametrize("garbage", [50.0, math.inf, math.nan])
def test_unknown_voxels_matter_neither_to_value_nor_gradient(garbage):
    logits, target = batch(3)
    unknown = (target == UNKNOWN)[:, None].expand_as(logits)
    spoilt = logits.detach().masked_fill(unknown, garbage).requires_grad_()
    value, spoilt_value = PartialLoss()(logits, target), PartialLoss()(spoilt, target)
    value.backward()
    spoilt_value.backward()
    assert spoilt_value.item() == value.item()
    assert bool((logits.grad[unknown] == 0).all()) and bool((logits.grad[~unknown] != 0).all())
    torch.testing.assert_close(spoilt.grad, logits.grad, rtol=0, atol=0)


def test_a_patch_without_annotation_contributes_nothing():
    logits, target = batch(2)
    alone = PartialLoss()(logits[:1], target[:1])
    target[1] = UNKNOWN
    value = PartialLoss()(logits, target)
    value.backward()
    assert value.item() == alone.item()
    assert bool((logits.grad[1] == 0).all())


def test_a_batch_without_annotation_is_zero_with_a_zero_gradient():
    logits, target = batch(2)
    value = PartialLoss()(logits, torch.full_like(target, UNKNOWN))
    value.backward()
    assert value.item() == 0
    assert bool((logits.grad == 0).all())


def test_absent_classes_are_left_out_of_the_means():
    logits, target = batch(3, patches=1)
    target[target == 2] = UNKNOWN
    expected = reference(logits[0].double(), target[0], include_background=True)
    for name, value in PartialLoss().terms(logits, target).items():
        assert value.item() == pytest.approx(expected[name], rel=1e-5)


def test_patches_of_only_background_still_punish_false_positives():
    logits, target = batch(2, patches=1)
    PartialLoss(include_background=False)(logits, torch.zeros_like(target)).backward()
    assert bool((logits.grad[:, 1] > 0).all())


def test_half_precision_logits_are_computed_in_float32():
    logits, target = batch(2)
    assert PartialLoss()(logits.bfloat16(), target).item() == PartialLoss()(logits.bfloat16().float(), target).item()


@pytest.mark.parametrize(
    "target, message",
    [
        (torch.zeros(2, 1, *SHAPE, dtype=torch.int64), "without a channel axis"),
        (torch.zeros(2, *SHAPE), "call `.long\\(\\)`"),
        (torch.full((2, *SHAPE), 2), "expected 0 to 1"),
        (torch.full((2, *SHAPE), -2), "expected 0 to 1"),
    ],
)
def test_targets_that_do_not_fit_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        PartialLoss()(batch(2)[0], target)
