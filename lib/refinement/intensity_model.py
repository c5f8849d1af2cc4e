"""An intensity model of a structure against what surrounds it, from a shape prior alone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.special import expit

BINS = 32
# A histogram of some thousand voxels has empty cells between full ones; this closes them. In cells.
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


def intensity_bins(values: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """For each voxel the cell of a joint histogram of its intensity and of its neighbourhood's mean.

    The mean tells a textured structure from single bright voxels elsewhere.

    Args:
        values: (X, Y, Z) float in [0, 1].
        spacing_mm: the neighbourhood reaches as many mm along each axis: a Gaussian with the smallest spacing
            as its standard deviation.

    Returns:
        (X, Y, Z) int in [0, BINS²).
    """
    smooth = ndimage.gaussian_filter(values, np.min(spacing_mm) / np.asarray(spacing_mm), truncate=3.0)
    own, around = (np.minimum((v * BINS).astype(np.int32), BINS - 1) for v in (values, smooth))
    return own * BINS + around


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

    The E-step: each voxel's probability, from the prior and the likelihoods. The M-step: both histograms,
    every voxel counted by its probability. (Dempster, Laird and Rubin, 1977; with histograms for mixtures.)

    Args:
        bins: (X, Y, Z) int as `intensity_bins` returns.
        prior_log_odds: (X, Y, Z), where the structure is expected, before intensities are looked at.
        weight: at least 0, of the likelihoods against the prior.
        iterations: of both steps, at least 0; with 0 the prior comes back.

    Returns:
        (X, Y, Z) float32.
    """
    log_odds = prior_log_odds
    for _ in range(iterations):
        log_odds = prior_log_odds + weight * log_likelihood_ratio(bins, expit(log_odds))
    return log_odds


def _density(bins: np.ndarray, weights: np.ndarray) -> np.ndarray:
    counts = np.bincount(bins.ravel(), weights.ravel(), minlength=BINS * BINS).reshape(BINS, BINS)
    counts = ndimage.gaussian_filter(counts, CELL_SIGMA, mode="nearest")
    return (counts / max(counts.sum(), 1e-9)).ravel()
