"""An intensity model of a structure against what surrounds it, from a shape prior alone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.special import expit

BINS = 32
# Share of the common histogram in both, so that an intensity seen on one side only does not decide alone.
COMMON_SHARE = 0.02


def intensity_bins(image: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """For each voxel the cell of a joint histogram of its intensity and of its neighbourhood's mean.

    The mean tells a textured structure from single bright voxels elsewhere.

    Args:
        image: (X, Y, Z) float.
        spacing_mm: sets how far the neighbourhood reaches along each axis.

    Returns:
        (X, Y, Z) int in [0, BINS²).
    """
    low, high = np.percentile(image, [0.5, 99.5])
    scaled = np.clip((image - low) / max(high - low, 1e-9), 0, 1)
    smooth = ndimage.gaussian_filter(scaled, np.min(spacing_mm) / np.asarray(spacing_mm))
    cells = [np.minimum((values * BINS).astype(np.int64), BINS - 1) for values in (scaled, smooth)]
    return cells[0] * BINS + cells[1]


def log_likelihood_ratio(bins: np.ndarray, foreground_probability: np.ndarray) -> np.ndarray:
    """log p(intensity | structure) / p(intensity | surroundings), both histograms weighted by the probability.

    Args:
        bins: (X, Y, Z) int as `intensity_bins` returns.
        foreground_probability: (X, Y, Z) in [0, 1].

    Returns:
        (X, Y, Z) float32.
    """
    inside = _density(bins, foreground_probability)
    outside = _density(bins, 1 - foreground_probability)
    common = COMMON_SHARE * (inside + outside) / 2 + 1e-7
    return np.log((inside + common) / (outside + common)).astype(np.float32)[bins]


def fit(bins: np.ndarray, prior_log_odds: np.ndarray, *, weight: float, iterations: int) -> np.ndarray:
    """Log-odds of the structure after expectation maximisation from a prior.

    Args:
        bins: (X, Y, Z) int as `intensity_bins` returns.
        prior_log_odds: (X, Y, Z), where the structure is expected, before intensities are looked at.
        weight: of the likelihoods; below 1, for neighbours' intensities repeat each other.

    Returns:
        (X, Y, Z) float32.
    """
    log_odds = prior_log_odds
    for _ in range(iterations):
        log_odds = prior_log_odds + weight * log_likelihood_ratio(bins, expit(log_odds))
    return log_odds


def _density(bins: np.ndarray, weights: np.ndarray) -> np.ndarray:
    counts = np.bincount(bins.ravel(), weights.ravel(), minlength=BINS * BINS).reshape(BINS, BINS)
    counts = ndimage.gaussian_filter(counts, 1.0, mode="nearest")
    return (counts / max(counts.sum(), 1e-9)).ravel()
