"""How unsure a network is, and the draw by it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, entropy

from lib.activelearning.uncertainty import HIGHEST_POWER, class_entropies, drawn_order, power

SHAPE = (6, 5, 4)


def probabilities(rng, classes, sharpness=1.0):
    """(1 + classes, X, Y, Z) that sum to 1, the background first."""
    logits = sharpness * rng.normal(size=(1 + classes, *SHAPE))
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=0)).astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(0, 20))
def test_score_is_the_mean_entropy_where_a_scan_is_most_like_the_class(seed, classes, sharpness):
    everything = probabilities(np.random.default_rng(seed), classes, sharpness)
    of_voxels = entropy(everything.astype(np.float64), axis=0, base=1 + classes)

    scores = class_entropies(everything[1:])

    for channel, score in zip(everything[1:], scores, strict=True):
        region = channel >= 0.25 * channel.max()
        assert score == pytest.approx(of_voxels[region].mean(), abs=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_scores_lie_between_0_and_1(seed, classes):
    scores = class_entropies(probabilities(np.random.default_rng(seed), classes)[1:])

    assert scores.shape == (classes,)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("classes", [1, 3])
def test_network_that_knows_nothing_scores_1_and_one_that_is_sure_0(classes):
    unsure = np.full((classes, *SHAPE), 1 / (1 + classes), np.float32)
    sure = np.zeros((classes, *SHAPE), np.float32)
    sure[:, 2, 2, 2] = np.eye(classes)[0]

    assert class_entropies(unsure) == pytest.approx(1, abs=1e-5)
    assert class_entropies(sure)[0] == 0
    assert np.isfinite(class_entropies(np.zeros((classes, *SHAPE), np.float32))).all()


def test_scan_in_which_nothing_is_predicted_scores_higher_the_nearer_something_was():
    def scan(highest):
        probability = np.full((1, *SHAPE), 1e-6, np.float32)
        probability[0, 2:4, 2:4, 1] = highest
        return class_entropies(probability)[0]

    assert scan(0.4) > scan(0.1) > scan(0.001) > 0


def test_score_does_not_depend_on_how_much_sure_background_there_is():
    probability = np.full((1, 20, 20, 20), 1e-6, np.float32)
    probability[0, 2:4, 2:4, 2] = [[0.9, 0.6], [0.5, 0.7]]

    assert class_entropies(probability) == pytest.approx(class_entropies(probability[:, :6, :6, :6]))


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_scans_are_drawn_in_proportion_to_a_power_of_their_scores(beta):
    scores, draws = np.array([0.1, 0.2, 0.3, 0.4]), 20000
    rng = np.random.default_rng(0)

    first = np.bincount([drawn_order(scores, beta, rng)[0] for _ in range(draws)], minlength=4)

    expected = scores**beta / (scores**beta).sum()
    assert chisquare(first, draws * expected).pvalue > 0.01
    assert chisquare(first, draws * np.full(4, 0.25)).pvalue < 0.01


def test_second_of_a_draw_is_in_proportion_among_those_that_are_left():
    scores, beta, rng = np.array([0.1, 0.2, 0.4]), 2.0, np.random.default_rng(1)
    orders = [drawn_order(scores, beta, rng) for _ in range(20000)]

    second = np.bincount([order[1] for order in orders if order[0] == 2], minlength=3)

    weights = scores[:2] ** beta
    assert second[2] == 0
    assert chisquare(second[:2], second.sum() * weights / weights.sum()).pvalue > 0.01


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0.1, 100), st.integers(0, 2**32 - 1))
def test_draw_holds_each_scan_once(scores, beta, seed):
    order = drawn_order(np.array(scores), beta, np.random.default_rng(seed))

    assert sorted(order) == list(range(len(scores)))


def test_noise_decays_with_the_annotated_scans():
    powers = [power(annotated) for annotated in range(200)]

    assert powers[0] == 1
    assert all(earlier <= later for earlier, later in zip(powers, powers[1:], strict=False))
    assert powers[8] == 2 * powers[4] == 4 * powers[0]
    assert powers[-1] == HIGHEST_POWER


def test_late_draws_take_the_highest_score():
    scores, rng = np.array([0.2, 0.5, 0.3]), np.random.default_rng(0)

    assert {drawn_order(scores, power(100), rng)[0] for _ in range(500)} == {1}
