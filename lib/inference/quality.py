"""Estimate the quality of an automatic mask from its stability under a slight blur and under the CRF."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from lib.inference.prediction import Device, predict_on_grid
from lib.metrics import dice
from lib.networks.checkpoint import TrainedModel

BLUR_VOXELS = 0.7
"""Standard deviation of the Gaussian, on the network's grid."""

_SLAB_VOXELS = 2**22


def mask_quality(
    model: TrainedModel,
    voxels: torch.Tensor,
    probability: torch.Tensor,
    drawn: np.ndarray,
    mask: np.ndarray,
    device: Device = "cpu",
) -> float:
    """Estimate the quality of a mask by its stability, averaged over labels, in [0, 1]; higher is better.

    It is the mean of two overlaps: of the probabilities with those of the slightly blurred scan and, if a CRF refined
    the mask, of the network's mask with the refined mask. A label without voxels has 0. The estimate is not a Dice with
    the truth; its rank correlation with the true Dice is in docs/pre_annotation.md.

    Args:
        voxels: (X, Y, Z), scan on the network's grid.
        probability: (C, X, Y, Z) of the foreground on that grid.
        drawn: (X', Y', Z') label indices of the network on the scan.
        mask: (X', Y', Z') label indices after the CRF; `drawn` itself without CRF.
    """
    indices = range(1, 1 + len(probability))
    is_drawn = np.array([bool((mask == index).any()) for index in indices])
    if not is_drawn.any():
        return 0.0
    blurred = torch.from_numpy(ndimage.gaussian_filter(voxels.float().numpy(), BLUR_VOXELS)).half()
    overlaps = [soft_dice(probability, predict_on_grid(model, blurred, device))]
    if mask is not drawn:
        overlaps.append(np.array([dice(drawn == index, mask == index) for index in indices]))
    return float((np.mean(overlaps, axis=0) * is_drawn).mean())


def soft_dice(one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    """Compute the Dice 2 sum min(p, q) / sum (p + q) of each label, of probabilities (C, X, Y, Z); 1 if both are 0."""
    labels, x, *plane = one.shape
    both, sizes = np.zeros(labels), np.zeros(labels)
    thickness = max(1, _SLAB_VOXELS // max(1, labels * plane[0] * plane[1]))
    for first in range(0, x, thickness):
        p, q = (values[:, first : first + thickness].float().flatten(1) for values in (one, other))
        both += torch.minimum(p, q).sum(1, dtype=torch.float64).numpy()
        sizes += (p.sum(1, dtype=torch.float64) + q.sum(1, dtype=torch.float64)).numpy()
    return np.where(sizes > 0, 2 * both / np.maximum(sizes, 1e-9), 1.0)
