"""Distances by raster scans, against an exact search."""

import numpy as np
import pytest
from skimage.graph import MCP_Geometric

from lib.clickmask.raster_distance import raster_distance

SPACING = (1.0, 0.7, 2.5)


def exact(cost, seeds, spacing_mm):
    return MCP_Geometric(cost, sampling=spacing_mm).find_costs(np.argwhere(seeds))[0]


def some_seeds(rng, shape, count=3):
    seeds = np.zeros(shape, dtype=bool)
    seeds[tuple(rng.integers(0, shape, (count, 3)).T)] = True
    return seeds


def test_where_all_voxels_cost_the_same_it_is_exact(rng):
    seeds = some_seeds(rng, (12, 9, 7))
    cost = np.full(seeds.shape, 0.3)

    distance = raster_distance(cost, seeds, SPACING, scans=1)

    assert distance.dtype == np.float32
    np.testing.assert_allclose(distance, exact(cost, seeds, SPACING), rtol=1e-5)


def test_enough_scans_find_the_cheapest_paths(rng):
    seeds = some_seeds(rng, (10, 11, 12))
    cost = rng.random(seeds.shape) + 0.05

    np.testing.assert_allclose(raster_distance(cost, seeds, SPACING, scans=12), exact(cost, seeds, SPACING), rtol=1e-4)


def test_few_scans_are_never_too_short_and_seldom_much_too_long(rng):
    seeds = some_seeds(rng, (20, 20, 20))
    cost = rng.random(seeds.shape) + 0.05
    expected = exact(cost, seeds, SPACING)

    distance = raster_distance(cost, seeds, SPACING)

    assert (distance >= expected - 1e-4).all()
    assert np.median(distance / np.maximum(expected, 1e-6)) < 1.05


def test_a_way_leads_around_a_wall():
    cost = np.ones((9, 9, 1))
    cost[4, :8] = 1000.0
    seeds = np.zeros(cost.shape, dtype=bool)
    seeds[2, 0, 0] = True

    distance = raster_distance(cost, seeds, (1, 1, 1))

    assert distance[6, 0, 0] == pytest.approx(2 * (8 + 2 * (np.sqrt(2) - 1)), rel=0.01)


def test_seeds_are_at_zero_and_nothing_else_is(rng):
    seeds = some_seeds(rng, (6, 7, 8))

    np.testing.assert_array_equal(raster_distance(rng.random(seeds.shape) + 0.1, seeds, SPACING) == 0, seeds)


def test_one_voxel():
    assert raster_distance(np.ones((1, 1, 1)), np.ones((1, 1, 1), bool), (1, 1, 1)).tolist() == [[[0.0]]]


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [((2, 2, 3), r"cost has shape \(2, 2, 2\), seeds \(2, 2, 3\)"), ((2, 2, 2), "seeds holds no voxel")],
)
def test_seeds_of_another_shape_and_no_seeds_are_refused(shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        raster_distance(np.ones((2, 2, 2)), np.zeros(shape, bool), (1, 1, 1))
