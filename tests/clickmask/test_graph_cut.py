"""The cut against two references: every labelling of a tiny volume, and SciPy's maximum flow of a larger one."""

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_flow

from lib.clickmask.graph_cut import graph_cut

SPACINGS_MM = [(1.0, 1.0, 1.0), (0.78, 0.78, 6.5), (3.0, 0.5, 1.2)]


def pairs(image, spacing_mm, smoothness, contrast):
    """Yield the voxels k and l of all pairs of neighbours, and w_kl, in float64."""
    index = np.arange(image.size).reshape(image.shape)
    areas = np.prod(spacing_mm) / np.array(spacing_mm)
    for axis in range(3):
        low, high = (
            np.take(index, range(*ends), axis=axis).ravel()
            for ends in ((0, -1 + image.shape[axis]), (1, image.shape[axis]))
        )
        steps = image.ravel()[low].astype(np.float64) - image.ravel()[high]
        yield low, high, smoothness * areas[axis] / areas.max() * np.exp(-(steps**2) / (2 * contrast**2))


def energy(mask, log_odds, image, spacing_mm, smoothness, contrast):
    label = mask.ravel()
    between = sum(w[label[k] != label[m]].sum() for k, m, w in pairs(image, spacing_mm, smoothness, contrast))
    return between - log_odds.ravel()[label].sum()


def example(shape, seed, scale=1.5):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=shape), rng.normal(100, 20, size=shape)


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("smoothness", [0.0, 0.3, 2.0, 20.0])
def test_no_labelling_of_a_tiny_volume_has_less_energy(spacing_mm, smoothness):
    log_odds, image = example((2, 3, 2), seed=1)

    cut = graph_cut(log_odds, image, spacing_mm, smoothness=smoothness, contrast=20.0)

    terms = (log_odds, image, spacing_mm, smoothness, 20.0)
    least = min(energy(np.array(labels), *terms) for labels in itertools.product([False, True], repeat=12))
    assert energy(cut, *terms) == pytest.approx(least, abs=1e-4)


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("smoothness", [0.5, 4.0])
@pytest.mark.parametrize("contrast", [5.0, 40.0])
def test_its_energy_is_the_maximum_flow(spacing_mm, smoothness, contrast):
    """Max-flow min-cut theorem: sum_k max(u_k, 0) - E(y) can be no less than the flow, and the minimum equals it."""
    log_odds, image = example((9, 8, 7), seed=2, scale=3.0)

    cut = graph_cut(log_odds, image, spacing_mm, smoothness=smoothness, contrast=contrast)

    units = 1e6  # SciPy's flow is of whole numbers
    source, sink = image.size, image.size + 1
    edges = [(np.full(image.size, source), np.arange(image.size), np.maximum(log_odds.ravel(), 0))]
    edges += [(np.arange(image.size), np.full(image.size, sink), np.maximum(-log_odds.ravel(), 0))]
    for low, high, weight in pairs(image, spacing_mm, smoothness, contrast):
        edges += [(low, high, weight), (high, low, weight)]
    start, end, capacity = (np.concatenate(column) for column in zip(*edges, strict=True))
    graph = coo_array((np.rint(capacity * units).astype(np.int32), (start, end)), shape=(sink + 1, sink + 1))
    flow = maximum_flow(graph.tocsr(), source, sink).flow_value / units
    cost = energy(cut, log_odds, image, spacing_mm, smoothness, contrast) + np.maximum(log_odds, 0).sum()
    assert 0 < cut.sum() < cut.size
    assert cost == pytest.approx(flow, abs=2e-3)


@pytest.mark.parametrize("smoothness", [0.5, 4.0, 50.0])
def test_voxels_whose_side_is_fixed_stay_on_it(smoothness):
    log_odds = np.full((7, 7, 7), -np.inf)
    log_odds[1:-1, 1:-1, 1:-1] = -0.2
    log_odds[3, 3, 3] = np.inf
    log_odds[3, 3, 4] = -np.inf

    cut = graph_cut(log_odds, np.zeros((7, 7, 7)), (1.0, 1.0, 1.0), smoothness=smoothness, contrast=1.0)

    assert np.argwhere(cut).tolist() == [[3, 3, 3]]


def test_a_voxel_that_outweighs_its_neighbours_is_decided_by_the_fixed_sum_of_their_weights():
    """Log-odds are cut off at that sum inside; 6 times the smoothness is just where a voxel gives in."""
    neighbours = np.full((3, 3, 3), -np.inf)
    for log_odds, expected in [(5.9 * 4, False), (6.05 * 4, True), (1e6, True)]:
        neighbours[1, 1, 1] = log_odds
        cut = graph_cut(neighbours, np.zeros((3, 3, 3)), (1.0, 1.0, 1.0), smoothness=4.0, contrast=1.0)
        assert cut[1, 1, 1] == expected


def test_without_smoothness_every_voxel_decides_for_itself():
    log_odds, image = example((5, 6, 7), seed=3)

    cut = graph_cut(log_odds, image, (1.0, 1.0, 4.0), smoothness=0.0, contrast=1.0)

    np.testing.assert_array_equal(cut, log_odds > 0)


@pytest.mark.parametrize("log_odds", [-2.0, 2.0])
def test_a_volume_of_one_voxel(log_odds):
    cut = graph_cut(np.full((1, 1, 1), log_odds), np.ones((1, 1, 1)), (1, 1, 1), smoothness=1.0, contrast=1.0)

    assert cut.tolist() == [[[log_odds > 0]]]


@pytest.mark.parametrize("smoothness, contrast", [(-1.0, 1.0), (1.0, 0.0), (np.nan, 1.0), (1.0, np.nan)])
def test_parameters_out_of_range_are_refused(smoothness, contrast):
    volume = np.zeros((2, 2, 2))
    with pytest.raises(ValueError, match=f"smoothness is {smoothness}, contrast {contrast}"):
        graph_cut(volume, volume, (1, 1, 1), smoothness=smoothness, contrast=contrast)


def test_volumes_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\), image \(2, 2, 3\)"):
        graph_cut(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), (1, 1, 1), smoothness=1.0, contrast=1.0)


def test_cuts_leave_no_memory_behind():
    """A server makes thousands of them."""
    log_odds, image = example((30, 30, 20), seed=4)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            graph_cut(log_odds, image, (1.0, 1.0, 1.0), smoothness=1.0, contrast=1.0)
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert left < 20 * 1000  # bytes; one volume alone has 72,000
