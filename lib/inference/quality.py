"""Estimate how good an automatic mask is, from the probabilities of the network alone."""

from __future__ import annotations

import torch

from lib.inference.prediction import most_probable

_SLAB_VOXELS = 2**22


def estimated_dice(foreground_probability: torch.Tensor) -> float:
    """The Dice that the most probable classes would have if each probability were right, the mean of the labels.

    Where M are the voxels of a label's mask and p their probabilities, the expected overlap is the sum of p over M,
    and the expected size of the structure the sum of p over all voxels: 2 sum_M p / (|M| + sum p). A label that the
    network draws nowhere has 0: whether it is in the scan is for a person to say. Measured: docs/pre_annotation.md.

    Args:
        foreground_probability: (C, X, Y, Z) in [0, 1], of any precision.

    Returns:
        In [0, 1].
    """
    labels, x, *plane = foreground_probability.shape
    inside, size, total = (torch.zeros(labels, dtype=torch.float64) for _ in range(3))
    thickness = max(1, _SLAB_VOXELS // max(1, labels * plane[0] * plane[1]))
    for first in range(0, x, thickness):
        slab = foreground_probability[:, first : first + thickness].float()
        drawn = most_probable(slab)
        for label in range(labels):
            is_label = drawn == label + 1
            inside[label] += slab[label][is_label].sum()
            size[label] += is_label.sum()
            total[label] += slab[label].sum()
    dice = 2 * inside / (size + total).clamp(min=1e-9)
    return float(dice.mean().clamp(0, 1))
