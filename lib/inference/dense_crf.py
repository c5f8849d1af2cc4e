"""Infer a fully connected CRF of two labels by mean-field updates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from scipy.special import expit, logit

from lib.losses.bilateral_grid import BilateralGrid

NODES_PER_SIGMA = 1.1
MIN_PROBABILITY = 1e-4
SMOOTHNESS_REACH_SIGMAS = 4.0


def mean_field(
    image: np.ndarray,
    foreground_probability: np.ndarray,
    spacing_mm: Sequence[float] | None = None,
    *,
    sigma_alpha: float = 5.0,
    sigma_beta: float = 0.5,
    appearance_weight: float = 6.0,
    sigma_smooth: float = 1.0,
    smoothness_weight: float = 2.0,
    iterations: int = 5,
) -> np.ndarray:
    """The posterior probability of the foreground after some parallel updates.

    Source: Kraehenbuehl and Koltun, NIPS 2011. Pairwise terms are Potts, weighted by an appearance kernel (near voxels
    of like intensity) and a smoothness kernel (near voxels). Each kernel is divided by its sum over all other voxels,
    so that weights are log-odds: one voxel among neighbours of one label gets the weight towards this label. Where the
    sum is below 1, a voxel's weight on itself, it is not divided: a voxel like no other keeps its unary.

    Args:
        image: (X, Y, Z), z-scored over the scan.
        foreground_probability: (X, Y, Z) in [0, 1], the unary term.
        spacing_mm: of the voxels, to measure distances in mm; in voxels if None.
        sigma_alpha, sigma_smooth: spatial scale of the appearance and of the smoothness kernel, in mm or voxels, > 0.
        sigma_beta: in units of the image, more than 0.

    Returns:
        (X, Y, Z) in [0, 1].
    """
    # In one memory order, so that the kernels need not be compiled for others.
    probability = np.ascontiguousarray(foreground_probability, np.float64)
    unary = logit(np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY))
    intensity = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    spacing = np.ones(3) if spacing_mm is None else np.asarray(spacing_mm, np.float64)
    grid = BilateralGrid(intensity, tuple(sigma_alpha / spacing), sigma_beta, NODES_PER_SIGMA)

    def appearance(values: np.ndarray) -> np.ndarray:
        return grid.filter(torch.from_numpy(values.astype(np.float32))[None])[0].double().numpy()

    def smoothness(values: np.ndarray) -> np.ndarray:
        return _gaussian_sum(values, sigma_smooth / spacing)

    kernels = [(appearance_weight, appearance), (smoothness_weight, smoothness)]
    # The pair of a voxel with itself, of weight 1, is no pair. Its weight on the grid is off by a few percent, which
    # is all that there is to divide where a voxel has no like neighbour.
    others = [np.maximum(kernel(np.ones(unary.shape)) - 1, 1) for _, kernel in kernels]
    q = expit(unary)
    for _ in range(iterations):
        towards = unary.copy()
        for (weight, kernel), total in zip(kernels, others, strict=True):
            # The message of the foreground less that of the background, q - (1 - q).
            votes = 2 * q - 1
            towards += weight * (kernel(votes) - votes) / total
        q = expit(towards)
    return q


def _gaussian_sum(values: np.ndarray, sigma_voxels: np.ndarray) -> np.ndarray:
    """sum over l of exp(-d(k, l)^2 / (2 sigma^2)) values_l; outside of the image there is nothing."""
    for axis, sigma in enumerate(sigma_voxels):
        reach = int(np.ceil(SMOOTHNESS_REACH_SIGMAS * sigma))
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
        values = ndimage.correlate1d(values, weights, axis=axis, mode="constant")
    return values
