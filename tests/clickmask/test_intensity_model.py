import numpy as np
import pytest
from scipy.special import expit

from lib.clickmask.intensity_model import BINS, fit, log_likelihood_ratio, normalised


def two_tissues(rng, noise=0.05):
    """Draw a ball of 0.7 in surroundings of 0.3."""
    grid = np.ogrid[:24, :24, :24]
    ball = sum((axis - 11.5) ** 2 for axis in grid) < 49
    return ball, np.clip(np.where(ball, 0.7, 0.3) + rng.normal(0, noise, ball.shape), 0, 1)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_intensities_of_any_type_fill_the_unit_interval(rng, dtype):
    values = normalised(rng.integers(20, 200, (9, 9, 9)).astype(dtype))

    assert values.dtype == np.float32
    assert (values.min(), values.max()) == (0, 1)


def test_scale_and_offset_of_an_image_do_not_matter(rng):
    image = rng.normal(size=(9, 9, 9))

    np.testing.assert_allclose(normalised(300 * image + 1000), normalised(image), atol=1e-4)


@pytest.mark.filterwarnings("error")
def test_one_huge_outlier_does_not_set_the_scale(rng):
    image = rng.normal(size=(12, 12, 12))
    hot = image.copy()
    hot[3, 3, 3] = 1e12

    others = np.ones(image.shape, dtype=bool)
    others[3, 3, 3] = False
    np.testing.assert_allclose(normalised(hot)[others], normalised(image)[others], atol=0.05)


@pytest.mark.filterwarnings("error")
def test_a_constant_image_is_zero():
    assert not normalised(np.full((4, 4, 4), 77)).any()


def test_ratio_is_that_of_the_two_tissues_normal_distributions(rng):
    """Against the closed form: for equal deviations s, the log-ratio is linear, (b - a) (x - (a + b) / 2) / s²."""
    inside = rng.random((60, 60, 60)) < 0.5
    x = np.clip(np.where(inside, 0.55, 0.45) + rng.normal(0, 0.1, inside.shape), 0, 1)

    ratio = log_likelihood_ratio(x, inside)

    common = np.abs(x - 0.5) < 0.2
    expected = (0.55 - 0.45) * (x - 0.5) / 0.1**2
    assert np.abs(ratio - expected)[common].mean() < 0.15


def test_ratio_changes_sign_with_the_sides(rng):
    ball, values = two_tissues(rng)

    np.testing.assert_allclose(log_likelihood_ratio(values, ball), -log_likelihood_ratio(values, ~ball), atol=1e-5)


def test_without_iterations_the_prior_comes_back(rng):
    prior = rng.normal(size=(5, 5, 5))

    np.testing.assert_array_equal(fit(np.zeros((5, 5, 5)), prior, weight=1.0, iterations=0), prior.astype(np.float32))


@pytest.mark.filterwarnings("error")
def test_where_all_intensities_are_equal_the_prior_decides(rng):
    prior = rng.normal(size=(8, 8, 8))

    log_odds = fit(np.zeros((8, 8, 8)), prior, weight=1.0, iterations=4)

    np.testing.assert_allclose(log_odds, prior, atol=1e-5)


@pytest.mark.parametrize("inverted", [False, True])
def test_a_rough_prior_finds_the_structure(rng, inverted):
    """The prior is another ball, too large and off centre; the intensities, bright or dark, correct it."""
    ball, values = two_tissues(rng)
    x, y, z = np.ogrid[:24, :24, :24]
    prior = np.maximum(5 * (1 - np.sqrt((x - 13.5) ** 2 + (y - 11.5) ** 2 + (z - 10.5) ** 2) / 8), -8)

    log_odds = fit(1 - values if inverted else values, prior, weight=1.0, iterations=4)

    def wrong(log_odds):
        return ((log_odds > 0) != ball).sum()

    assert wrong(log_odds) < 0.25 * wrong(prior)


def test_each_iteration_makes_the_intensities_more_likely(rng):
    """Expectation maximisation with weight 1: the likelihood of the mixture does not fall."""
    ball, values = two_tissues(rng, noise=0.15)
    cells = np.minimum((values * BINS).astype(int), BINS - 1)
    prior = np.where(ball, 0.5, -0.5) + rng.normal(0, 0.3, ball.shape)

    def log_likelihood(iterations):
        probability = expit(fit(values, prior, weight=1.0, iterations=iterations))
        inside, outside = (np.bincount(cells.ravel(), p.ravel(), BINS) for p in (probability, 1 - probability))
        mixture = expit(prior) * (inside / inside.sum())[cells] + expit(-prior) * (outside / outside.sum())[cells]
        return np.log(mixture).mean()

    likelihoods = [log_likelihood(n) for n in (0, 1, 2, 4)]
    assert likelihoods == sorted(likelihoods)
