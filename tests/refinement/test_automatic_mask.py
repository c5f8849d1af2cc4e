"""A network's mask ends where the image shows an edge, and what it found is not lost."""

import numpy as np
import pytest

from lib.refinement.automatic_mask import crf_label_map, label_map

SHAPE, SPACING_MM = (40, 36, 20), (1.0, 1.0, 2.0)


def ball(centre, radius_mm):
    grid_mm = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING_MM
    return np.linalg.norm(grid_mm - np.multiply(centre, SPACING_MM), axis=-1) <= radius_mm


def image_of(*masks, noise=0.15):
    """(X, Y, Z): the masks are 1, 2, ... on 0."""
    image = sum(level * mask for level, mask in enumerate(masks, start=1))
    return image + np.random.default_rng(0).normal(0, noise, SHAPE)


def opinion(mask, inside=0.8, outside=0.1):
    return np.where(mask, inside, outside)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize("scale", [1.0, 700.0])
def test_a_mask_that_is_too_large_ends_at_the_edge_whatever_the_scale_of_intensities(scale):
    truth = ball((20, 18, 10), 7)
    probability = opinion(ball((20, 18, 10), 10), inside=0.6)[None]

    refined = crf_label_map(scale * image_of(truth), probability, SPACING_MM)

    assert dice(label_map(probability) == 1, truth) < 0.6
    assert dice(refined == 1, truth) > 0.95


def test_labels_stay_apart():
    left, right = ball((12, 18, 10), 6), ball((28, 18, 10), 6)
    probability = np.stack([opinion(ball((12, 18, 10), 8), 0.6), opinion(ball((28, 18, 10), 8), 0.6)])

    refined = crf_label_map(image_of(left, right), probability, SPACING_MM)

    assert dice(refined == 1, left) > 0.9
    assert dice(refined == 2, right) > 0.9


def test_what_the_crf_would_remove_stays_as_the_network_drew_it():
    """A faint opinion in an image without any edge."""
    probability = opinion(ball((20, 18, 10), 3), inside=0.55)[None]

    refined = crf_label_map(image_of(noise=1.0), probability, SPACING_MM)

    np.testing.assert_array_equal(refined, label_map(probability))
    assert refined.any()


@pytest.mark.parametrize("radius_mm", [2, 4])
def test_what_the_crf_would_leave_little_of_stays_as_the_network_drew_it(radius_mm):
    """A faint opinion of 7 mm around a bright spot: a fiftieth of it, a fifth of it."""
    probability = opinion(ball((20, 18, 10), 7), inside=0.55)[None]
    image = image_of(6.0 * ball((20, 18, 10), radius_mm), noise=0.5)

    refined = crf_label_map(image, probability, SPACING_MM)

    np.testing.assert_array_equal(refined, label_map(probability))


def test_where_the_network_finds_nothing_there_is_nothing():
    assert not crf_label_map(image_of(ball((20, 18, 10), 7)), np.full((2, *SHAPE), 0.2), SPACING_MM).any()


def test_a_constant_image_keeps_the_networks_mask():
    truth = ball((20, 18, 10), 7)

    refined = crf_label_map(np.full(SHAPE, 5.0), opinion(truth, 0.95, 0.02)[None], SPACING_MM)

    assert dice(refined == 1, truth) > 0.9
