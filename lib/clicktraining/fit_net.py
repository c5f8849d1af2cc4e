"""Train the structure net."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lib.clickmask.structure_net import FEATURES, MAX_DEVIATIONS, StructureNet
from lib.clicktraining.samples import VOXELS, Sample

HIDDEN = (32, 16)
STRUCTURES_AT_ONCE = 16
LEARNING_RATE, WEIGHT_DECAY = 4e-3, 1e-3

ENTROPY_SHARE = 0.5
"""Weight of the cross-entropy relative to the Dice loss."""

RARE_SHARE = 0.05
"""Added to a structure's share of the voxels around it, by which its cross-entropy is divided, so that a thin structure
has nearly the same weight as a thick one."""

NOISE = 0.05
"""Standard deviation of noise on the scaled features, the same for all voxels of a structure, against overfitting to
single structures."""

LEVEL = 0.8
"""Added to the log-odds after the training. Of uncertain masks, the larger ones have the higher expected Dice: the
optimal threshold of the probability is half the Dice (Lipton et al., ECML 2014)."""


def fit_net(
    real: Sequence[Sample], random: Sequence[Sample], *, random_share: float = 0.6, steps: int = 3000, seed: int = 0
) -> StructureNet:
    """Train a net by cross-entropy and Dice loss, both per structure.

    Args:
        real, random: samples of structures of scans, and of random structures.
        random_share: share in [0, 1] of random structures in a step.
        steps: number of steps of the optimiser.
        seed: the same seed gives the same net on the same machine.

    Raises:
        ValueError: no samples of a kind whose share is not 0.
    """
    if (random_share < 1 and not real) or (random_share > 0 and not random):
        raise ValueError(f"{len(real)} real and {len(random)} random samples; expected some of both")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    features, inside, weight = _stacked([*real, *random])
    shares = np.concatenate(
        [
            np.full(len(real), (1 - random_share) / max(len(real), 1)),
            np.full(len(random), random_share / max(len(random), 1)),
        ]
    )
    known = np.concatenate([s.features[::7] for s in [*real, *random]]).astype(np.float32)
    mean, deviation = known.mean(axis=0), known.std(axis=0) + 1e-3
    net = _perceptron()
    optimiser = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        chosen = rng.choice(len(features), STRUCTURES_AT_ONCE, p=shares)
        scaled = (features[chosen].astype(np.float32) - mean) / deviation
        scaled = np.clip(scaled, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        scaled += rng.normal(0, NOISE, (len(chosen), 1, len(FEATURES)))
        loss = _loss(
            net(torch.from_numpy(scaled))[..., 0], torch.from_numpy(inside[chosen]), torch.from_numpy(weight[chosen])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    weights = tuple(layer.weight.detach().numpy().copy() for layer in layers)
    biases = tuple(layer.bias.detach().numpy().copy() for layer in layers)
    return StructureNet(mean, deviation, weights, (*biases[:-1], biases[-1] + np.float32(LEVEL)))


def _perceptron() -> nn.Sequential:
    sizes = (len(FEATURES), *HIDDEN)
    hidden = [layer for n, m in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))


def _loss(log_odds: torch.Tensor, inside: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the mean loss; all arguments are (structures, voxels)."""
    entropy = (weight * functional.binary_cross_entropy_with_logits(log_odds, inside, reduction="none")).sum(1)
    share = (weight * inside).sum(1)
    probability = torch.sigmoid(log_odds)
    dice = 2 * (weight * probability * inside).sum(1) / (weight * (probability + inside)).sum(1)
    return (ENTROPY_SHARE * entropy / (share + RARE_SHARE) + 1 - dice).mean()


def _stacked(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stack to features (S, VOXELS, F), inside and weight (S, VOXELS) float32; missing voxels have weight 0."""
    features = np.zeros((len(samples), VOXELS, len(FEATURES)), dtype=np.float16)
    inside, weight = np.zeros((2, len(samples), VOXELS), dtype=np.float32)
    for n, one in enumerate(samples):
        count = len(one.inside)
        features[n, :count], inside[n, :count], weight[n, :count] = one
    return features, inside, weight
