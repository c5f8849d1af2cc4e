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
    """Compute the posterior probability of the foreground after some parallel updates.

    Source: Kraehenbuehl and Koltun, NIPS 2011. Pairwise terms are Potts, weighted by an appearance kernel (near voxels
    of similar intensity) and a smoothness kernel (near voxels). Each kernel is divided by its sum over all other
    voxels, so that weights are log-odds: a voxel whose neighbours all have one label is shifted by the weight towards
    this label. A sum below 1, the weight of a voxel on itself, is not divided by: a voxel without similar neighbours
    keeps its unary.

    Args:
        image: (X, Y, Z), z-scored over the scan.
        foreground_probability: (X, Y, Z) in [0, 1], the unary term.
        spacing_mm: of the voxels, to measure distances in mm; in voxels if None.
        sigma_alpha, sigma_smooth: spatial scale of the appearance and the smoothness kernel, in mm or voxels, > 0.
        sigma_beta: intensity scale in units of the image, > 0.
        appearance_weight, smoothness_weight: weight of each kernel, in log-odds.
        iterations: number of updates.

    Returns:
        (X, Y, Z) in [0, 1].
    """
    # One memory order, so that the kernels are compiled once.
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
    # A voxel is not its own neighbour, so its weight of 1 is subtracted. This weight has an error of a few percent on
    # the grid; the minimum keeps the error from dominating where a voxel has no similar neighbour.
    others = [np.maximum(kernel(np.ones(unary.shape)) - 1, 1) for _, kernel in kernels]
    q = expit(unary)
    for _ in range(iterations):
        towards = unary.copy()
        for (weight, kernel), total in zip(kernels, others, strict=True):
            # The message of the foreground minus that of the background, q - (1 - q).
            votes = 2 * q - 1
            towards += weight * (kernel(votes) - votes) / total
        q = expit(towards)
    return q


def _gaussian_sum(values: np.ndarray, sigma_voxels: np.ndarray) -> np.ndarray:
    """Compute sum over l of exp(-d(k, l)^2 / (2 sigma^2)) values_l, with zeros outside the image."""
    for axis, sigma in enumerate(sigma_voxels):
        reach = int(np.ceil(SMOOTHNESS_REACH_SIGMAS * sigma))
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
        values = ndimage.correlate1d(values, weights, axis=axis, mode="constant")
    return values
