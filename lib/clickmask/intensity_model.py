"""Fit an intensity model of a structure and its surroundings to a shape prior."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.special import expit

BINS = 32
# Standard deviation in cells; fills the empty cells in a histogram of some hundred voxels.
CELL_SIGMA = 1.0
# Share of the mean histogram in both, so that an intensity found on one side only is not decisive.
COMMON_SHARE = 0.02
# Percentiles of intensity that are mapped to 0 and 1, robust to single outliers.
DARKEST, BRIGHTEST = 0.5, 99.5
# Minimum of `typical_step`, for constant images.
MIN_STEP = 1e-3


def normalised(image: np.ndarray) -> np.ndarray:
    """Scale intensities to [0, 1] and clip outliers; zeros for a constant image.

    Args:
        image: (X, Y, Z), finite, of any dtype.

    Returns:
        (X, Y, Z) float32.
    """
    low, high = np.percentile(image, [DARKEST, BRIGHTEST])
    if high <= low:
        return np.zeros(image.shape, dtype=np.float32)
    return np.clip((image.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)


def typical_step(values: np.ndarray) -> float:
    """Return the root mean square difference between neighbours in (X, Y, Z) of [0, 1], at least `MIN_STEP`."""
    steps = np.concatenate([np.diff(values, axis=axis).ravel() for axis in range(3)])
    return max(float(np.sqrt(np.mean(steps**2))), MIN_STEP) if steps.size else MIN_STEP


def log_likelihood_ratio(values: np.ndarray, foreground_probability: np.ndarray) -> np.ndarray:
    """Compute log p(intensity | structure) / p(intensity | surroundings) from probability-weighted histograms.

    Args:
        values: (X, Y, Z) float in [0, 1].
        foreground_probability: (X, Y, Z) in [0, 1].

    Returns:
        (X, Y, Z) float32.
    """
    cells = intensity_cells(values)
    inside = smoothed_counts(cells, CELL_SIGMA, foreground_probability)
    outside = smoothed_counts(cells, CELL_SIGMA, 1 - foreground_probability)
    common = COMMON_SHARE * (inside + outside) / 2 + 1e-7
    return np.log((inside + common) / (outside + common)).astype(np.float32)[cells]


def fit(values: np.ndarray, prior_log_odds: np.ndarray, *, weight: float, iterations: int) -> np.ndarray:
    """Compute log-odds of the structure by expectation maximisation from a prior.

    E-step: the probability of each voxel, from the prior and the likelihoods. M-step: both histograms, with voxels
    weighted by their probability. (Dempster, Laird and Rubin, 1977; histograms instead of a mixture of Gaussians,
    because intensities of one tissue are seldom normal.)

    Args:
        values: (X, Y, Z) float in [0, 1].
        prior_log_odds: (X, Y, Z) of the structure without regard to intensities.
        weight: of the likelihoods relative to the prior, at least 0.
        iterations: of both steps, at least 0; 0 returns the prior.

    Returns:
        (X, Y, Z) float32, a new array.
    """
    log_odds = np.array(prior_log_odds, dtype=np.float32)
    for _ in range(iterations):
        log_odds = prior_log_odds + np.float32(weight) * log_likelihood_ratio(values, expit(log_odds))
    return log_odds


def intensity_cells(values: np.ndarray) -> np.ndarray:
    """Return the histogram cell (X, Y, Z) intp in [0, BINS) of each value in [0, 1]."""
    return np.minimum((values * BINS).astype(np.intp), BINS - 1)


def smoothed_counts(cells: np.ndarray, sigma: float = CELL_SIGMA, weights: np.ndarray | None = None) -> np.ndarray:
    """Return a histogram (BINS,) float with sum 1, optionally weighted, smoothed by a Gaussian."""
    counts = np.bincount(cells.ravel(), None if weights is None else weights.ravel(), minlength=BINS).astype(float)
    counts = ndimage.gaussian_filter1d(counts, sigma, mode="nearest")
    return counts / max(counts.sum(), 1e-9)
