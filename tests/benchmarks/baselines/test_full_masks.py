"""The loss of full masks, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.baselines.full_masks import DiceCrossEntropy
from lib.data.scans import PatchBatch
from lib.trainers.hyperparameters import Hyperparameters

SHAPE = (6, 5, 4)


def batch(*masks: torch.Tensor | None) -> PatchBatch:
    nothing = torch.zeros(len(masks), 1, *SHAPE)
    return PatchBatch(nothing, [[] for _ in masks], nothing[:, 0].bool(), list(masks))


def test_loss_is_one_minus_dice_of_the_batch_plus_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = [(torch.rand(SHAPE, generator=generator) < share).long() for share in (0.1, 0.4)]
    logits = torch.randn(2, 2, *SHAPE, generator=generator)

    value = DiceCrossEntropy(("lesion",), (1.0, 1.0, 1.0), Hyperparameters())(batch(*masks), logits, guided=False)

    p = np.exp(logits.double().numpy()) / np.exp(logits.double().numpy()).sum(axis=1, keepdims=True)
    t = np.stack([mask.numpy() for mask in masks])
    dice = 2 * (p[:, 1] * t).sum() / (p[:, 1].sum() + t.sum())
    cross_entropy = -np.log(np.where(t, p[:, 1], p[:, 0])).mean()
    assert value.loss.item() == pytest.approx(1 - dice + cross_entropy, rel=1e-4)


def test_a_patch_without_a_mask_is_refused() -> None:
    loss = DiceCrossEntropy(("lesion",), (1.0, 1.0, 1.0), Hyperparameters())

    with pytest.raises(ValueError, match="1 patches have no mask"):
        loss(batch(torch.zeros(SHAPE).long(), None), torch.zeros(2, 2, *SHAPE), guided=False)
