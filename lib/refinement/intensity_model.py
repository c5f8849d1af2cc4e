"""An intensity model of a structure against what surrounds it, from a shape prior alone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.special import expit

BINS = 32
# A histogram of some hundred voxels has empty cells between full ones; this closes them. In cells.
CELL_SIGMA = 1.0
# Share of the common histogram in both, so that an intensity seen on one side only does not decide alone.
COMMON_SHARE = 0.02
# Percentiles of intensity that become 0 and 1. One hot pixel must not set the scale.
DARKEST, BRIGHTEST = 0.5, 99.5


def normalised(image: np.ndarray) -> np.ndarray:
    """Intensities scaled to [0, 1], outliers clipped; zeros for a constant image.

    Args:
        image: (X, Y, Z), finite, of any type.

    Returns:
        (X, Y, Z) float32.
    """
    low, high = np.percentile(image, [DARKEST, BRIGHTEST])
    if high <= low:
        return np.zeros(image.shape, dtype=np.float32)
    return np.clip((image.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)


def log_likelihood_ratio(values: np.ndarray, foreground_probability: np.ndarray) -> np.ndarray:
    """log p(intensity | structure) / p(intensity | surroundings), both histograms weighted by the probability.

    Args:
        values: (X, Y, Z) float in [0, 1].
        foreground_probability: (X, Y, Z) in [0, 1].

    Returns:
        (X, Y, Z) float32.
    """
    cells = np.minimum((values * BINS).astype(np.intp), BINS - 1)
    inside = _density(cells, foreground_probability)
    outside = _density(cells, 1 - foreground_probability)
    common = COMMON_SHARE * (inside + outside) / 2 + 1e-7
    return np.log((inside + common) / (outside + common)).astype(np.float32)[cells]


def fit(values: np.ndarray, prior_log_odds: np.ndarray, *, weight: float, iterations: int) -> np.ndarray:
    """Log-odds of the structure after expectation maximisation from a prior.

    The E-step: each voxel's probability, from the prior and the likelihoods. The M-step: both histograms,
    every voxel counted by its probability. (Dempster, Laird and Rubin, 1977; histograms instead of a mixture
    of Gaussians, for intensities of one tissue are seldom normal.)

    Args:
        values: (X, Y, Z) float in [0, 1].
        prior_log_odds: (X, Y, Z), where the structure is expected, before intensities are looked at.
        weight: at least 0, of the likelihoods against the prior.
        iterations: of both steps, at least 0; with 0 the prior comes back.

    Returns:
        (X, Y, Z) float32, a new array.
    """
    log_odds = np.array(prior_log_odds, dtype=np.float32)
    for _ in range(iterations):
        log_odds = prior_log_odds + np.float32(weight) * log_likelihood_ratio(values, expit(log_odds))
    return log_odds


def _density(cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
    counts = np.bincount(cells.ravel(), weights.ravel(), minlength=BINS)
    counts = ndimage.gaussian_filter1d(counts, CELL_SIGMA, mode="nearest")
    return counts / max(counts.sum(), 1e-9)
