"""Mean field against the sum over all pairs of voxels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from lib.inference.dense_crf import mean_field
from lib.metrics import dice


def mean_field_by_all_pairs(
    image: np.ndarray,
    probability: np.ndarray,
    alpha: float,
    beta: float,
    smooth: float,
    weights: tuple[float, float],
    spacing_mm: tuple[float, float, float],
) -> np.ndarray:
    """Compute Kraehenbuehl and Koltun's update over all pairs of voxels, in float64."""
    places = np.argwhere(np.ones(image.shape)) * np.array(spacing_mm)
    squares = ((places[:, None] - places) ** 2).sum(axis=-1)
    steps = (image.ravel()[:, None] - image.ravel()) ** 2
    kernels = [np.exp(-squares / (2 * alpha**2) - steps / (2 * beta**2)), np.exp(-squares / (2 * smooth**2))]
    for kernel in kernels:
        np.fill_diagonal(kernel, 0)
        kernel /= np.maximum(kernel.sum(axis=1, keepdims=True), 1)
    unary = logit(probability.ravel())
    q = expit(unary)
    for _ in range(5):
        pairwise = sum(w * (kernel @ q - kernel @ (1 - q)) for w, kernel in zip(weights, kernels, strict=True))
        q = expit(unary + pairwise)
    return q.reshape(image.shape)


@pytest.mark.parametrize("spacing_mm", [None, (0.8, 0.8, 2.0)])
@pytest.mark.parametrize(("alpha", "beta", "smooth"), [(3.0, 0.5, 1.0), (6.0, 1.0, 0.7)])
def test_posterior_is_that_of_the_sum_over_all_pairs(
    alpha: float, beta: float, smooth: float, spacing_mm: tuple[float, float, float] | None
) -> None:
    rng = np.random.default_rng(0)
    image, probability = rng.normal(size=(12, 11, 9)), rng.uniform(0.05, 0.95, size=(12, 11, 9))

    found = mean_field(
        image,
        probability,
        spacing_mm,
        sigma_alpha=alpha,
        sigma_beta=beta,
        appearance_weight=2.0,
        sigma_smooth=smooth,
        smoothness_weight=1.0,
    )

    # The grid applies the appearance kernel to within about a percent.
    expected = mean_field_by_all_pairs(image, probability, alpha, beta, smooth, (2.0, 1.0), spacing_mm or (1, 1, 1))
    assert np.abs(found - expected).max() < 0.03
    assert np.abs(found - expected).mean() < 0.005


def test_without_pairs_the_unary_stays() -> None:
    probability = np.random.default_rng(0).uniform(0.01, 0.99, size=(6, 5, 4))

    found = mean_field(np.zeros(probability.shape), probability, appearance_weight=0, smoothness_weight=0)

    np.testing.assert_allclose(found, probability, rtol=1e-9)


def test_a_voxel_without_similar_neighbours_keeps_its_unary() -> None:
    image = np.random.default_rng(0).normal(0, 0.3, size=(16, 14, 12))
    image[8, 7, 6], image[3, 3, 3] = 9.0, -9.0
    probability = np.full(image.shape, 0.3)
    probability[5:11, 4:10, 3:9] = 0.7

    found = mean_field(image, probability, smoothness_weight=0)

    assert found[8, 7, 6] == pytest.approx(0.7, abs=0.03)
    assert found[3, 3, 3] == pytest.approx(0.3, abs=0.03)


def test_noisy_probabilities_of_a_structure_with_contrast_are_corrected() -> None:
    grid = np.moveaxis(np.indices((30, 28, 20)), 0, -1)
    truth = np.linalg.norm((grid - [14, 13, 10]) / np.array([7, 6, 4]), axis=-1) <= 1
    image = truth + np.random.default_rng(0).normal(0, 0.25, truth.shape)
    image = (image - image.mean()) / image.std()
    noise = np.random.default_rng(2).normal(0, 0.3, truth.shape)
    probability = np.clip(0.5 + 0.2 * (2 * truth - 1) + noise, 0.02, 0.98)

    found = mean_field(image, probability) > 0.5

    assert dice(probability > 0.5, truth) < 0.75
    assert dice(found, truth) > 0.95
