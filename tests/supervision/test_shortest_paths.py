"""Shortest paths against SciPy's Dijkstra on a graph that is spelled out, and against every path there is."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from lib.supervision.shortest_paths import shortest_path

STEPS = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
WEIGHTS = [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.02, 0.02, 0.26), (0.0, 0.5, 0.1)]


def graph(cost, weight):
    """Return all edges as a sparse matrix, each with the cost of the voxel it leaves plus its length, and the index."""
    index = np.arange(cost.size).reshape(cost.shape)
    tails, heads, prices = [], [], []
    for step in STEPS:
        tail = tuple(slice(max(0, -d), size - max(0, d)) for d, size in zip(step, cost.shape, strict=True))
        head = tuple(slice(max(0, d), size - max(0, -d)) for d, size in zip(step, cost.shape, strict=True))
        tails.append(index[tail].ravel())
        heads.append(index[head].ravel())
        prices.append(cost[tail].ravel().astype(np.float64) + math.hypot(*np.multiply(step, weight)))
    edges = (np.concatenate(tails), np.concatenate(heads))
    return csr_matrix((np.concatenate(prices), edges), shape=(cost.size, cost.size)), index


def cheapest(cost, source, target, weight):
    edges, index = graph(cost, weight)
    return dijkstra(edges, indices=index[tuple(source)])[index[tuple(target)]]


def price(path, cost, weight):
    lengths = [math.hypot(*np.multiply(step, weight)) for step in np.diff(path, axis=0)]
    return math.fsum([*lengths, *cost[tuple(path[:-1].T)].tolist()])


def assert_path(path, source, target):
    assert path.dtype == np.int64
    assert path[0].tolist() == list(source) and path[-1].tolist() == list(target)
    assert np.abs(np.diff(path, axis=0)).max(axis=1, initial=0).tolist() == [1] * (len(path) - 1)


def assert_cheapest(cost, source, target, weight):
    path = shortest_path(cost, source, target, weight)
    assert_path(path, source, target)
    assert price(path, cost, weight) == pytest.approx(cheapest(cost, source, target, weight), rel=1e-12, abs=0)


def volumes():
    rng, shape = np.random.default_rng(3), (13, 11, 9)
    noise = rng.random(shape)
    serpentine = np.where(np.indices(shape)[0] % 2, 50.0, 0.01)
    serpentine[1::4, -1], serpentine[3::4, 0] = 0.01, 0.01
    return {
        "noise": noise,
        "noise with zeros": np.where(noise < 0.4, 0, noise),
        "few values": rng.integers(0, 3, shape).astype(float),
        "zero": np.zeros(shape),
        "constant": np.full(shape, 0.7),
        "ball": (np.linalg.norm(np.indices(shape) - np.reshape([6, 5, 4], (3, 1, 1, 1)), axis=0) > 3.5) + 0.1 * noise,
        "serpentine of walls": serpentine,
        "all but equal": 1 + 1e-14 * noise,
        "many magnitudes": 10 ** (40 * noise - 30),
    }


VOLUMES = volumes()


@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("kind", VOLUMES)
def test_no_path_is_cheaper(kind, weight):
    for source, target in [
        ((0, 5, 4), (12, 6, 3)),
        ((12, 10, 8), (0, 0, 0)),
        ((6, 5, 0), (5, 5, 8)),
        ((4, 4, 4), (4, 5, 4)),
    ]:
        assert_cheapest(VOLUMES[kind], source, target, weight)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_path_is_cheaper_in_any_small_volume(data):
    shape = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
    some = st.one_of(st.sampled_from([0.0, 1.0, 1e-9, 1e9]), st.floats(0, 10))
    cost = np.array(data.draw(st.lists(some, min_size=math.prod(shape), max_size=math.prod(shape)))).reshape(shape)
    ends = [tuple(data.draw(st.integers(0, size - 1)) for size in shape) for _ in range(2)]
    weight = data.draw(st.tuples(*[st.one_of(st.just(0.0), st.floats(1e-6, 10))] * 3))

    assert_cheapest(cost, *ends, weight)


@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 3, 1), (1, 2, 4)])
def test_no_path_is_cheaper_among_all_there_are(shape, weight):
    cost = np.random.default_rng(0).random(shape)
    target = tuple(size - 1 for size in shape)

    def prices(path):
        if path[-1] == target:
            yield price(np.array(path), cost, weight)
            return
        for step in STEPS:
            voxel = tuple(np.add(path[-1], step).tolist())
            if voxel not in path and all(0 <= i < size for i, size in zip(voxel, cost.shape, strict=True)):
                yield from prices([*path, voxel])

    path = shortest_path(cost, (0, 0, 0), target, weight)
    assert price(path, cost, weight) == pytest.approx(min(prices([(0, 0, 0)])), rel=1e-12)


@pytest.mark.parametrize("weight", [(0.0, 0.0, 0.0), (0.02, 0.02, 0.06)], ids=str)
def test_no_path_is_cheaper_in_the_box_of_a_tumour(weight):
    assert_cheapest(np.random.default_rng(1).random((40, 40, 20)), (0, 18, 9), (39, 22, 11), weight)


@pytest.mark.parametrize("behind_walls", ["first", "last", "both"])
def test_no_path_is_cheaper_from_behind_walls_of_huge_cost(behind_walls):
    # One side has settled the whole region between the walls before the other is through its wall.
    cost = np.random.default_rng(9).random((24, 12, 8))
    cost[:3] = 1e6 if behind_walls != "last" else cost[:3]
    cost[-3:] = 1e6 if behind_walls != "first" else cost[-3:]

    assert_cheapest(cost, (0, 6, 4), (23, 5, 3), (0.02, 0.02, 0.06))


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("noise", [1e-14, 1e-12, 1e-11, 1e-9, 1e-6])
def test_no_path_is_cheaper_where_costs_hardly_differ(noise, axes):
    # Between two expensive ends, all keys differ only in bits that the kernel overwrites with the index of the voxel.
    cost = noise * np.random.default_rng(8).random((40, 40, 20))
    cost[[0, -1]] = 1
    cost = cost.transpose(axes)
    source, target = ([end[axis] for axis in axes] for end in ((0, 20, 10), (39, 15, 12)))
    path = shortest_path(cost, source, target, (0, 0, 0))

    found, expected = price(path, cost, (0, 0, 0)), cheapest(cost, source, target, (0, 0, 0))
    assert found == pytest.approx(expected, rel=1e-13, abs=0)


@pytest.mark.parametrize("shape", [(1, 9, 9), (9, 1, 9), (9, 9, 1), (1, 1, 12), (1, 12, 1), (12, 1, 1), (2, 1, 1)])
@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
def test_volume_of_one_voxel_across(shape, weight):
    assert_cheapest(np.random.default_rng(2).random(shape), (0, 0, 0), np.array(shape) - 1, weight)


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 5, 6)])
def test_path_from_a_voxel_to_itself_is_that_voxel(shape):
    end = np.array(shape) // 2

    assert shortest_path(np.ones(shape), end, end, (1, 1, 1)).tolist() == [end.tolist()]


def test_last_voxel_is_free_and_the_first_is_not():
    cost = np.zeros((4, 1, 1))
    cost[0], cost[-1] = 2, 1000
    path = shortest_path(cost, (0, 0, 0), (3, 0, 0), (0, 0, 0))

    assert price(path, cost, (0, 0, 0)) == 2
    assert cheapest(cost, (0, 0, 0), (3, 0, 0), (0, 0, 0)) == 2


def test_an_expensive_last_voxel_does_not_round_away_the_cost_of_the_others():
    cost = np.full((3, 3, 3), 1e-18)
    cost[1, 2, 1], cost[2, 1, 1] = 0, 1

    assert shortest_path(cost, (0, 1, 1), (2, 1, 1), (0, 0, 0)).tolist() == [[0, 1, 1], [1, 2, 1], [2, 1, 1]]


def test_constant_cost_takes_the_fewest_steps():
    path = shortest_path(np.ones((12, 10, 8)), (1, 9, 0), (11, 2, 7), (0, 0, 0))

    assert len(path) == 10 + 1


def test_without_vertex_costs_the_straight_way_along_an_axis_is_the_shortest():
    path = shortest_path(np.zeros((12, 10, 8)), (5, 5, 0), (5, 5, 7), (1, 1, 6.5))

    assert path.tolist() == [[5, 5, k] for k in range(8)]


def test_expensive_steps_across_slices_are_taken_only_where_they_are_cheaper():
    # A wall in the first slice: one path leads around it in the slice, one over the next slice.
    cost = np.zeros((11, 21, 2))
    cost[5, :-1, 0] = 1e6
    near, far = (0.01, 0.01, 0.01), (0.01, 0.01, 10.0)

    assert shortest_path(cost, (0, 10, 0), (10, 10, 0), near)[:, 2].max() == 1
    assert shortest_path(cost, (0, 10, 0), (10, 10, 0), far)[:, 2].max() == 0


def test_way_back_costs_the_same_but_for_the_ends():
    cost = np.random.default_rng(4).random((10, 12, 7))
    source, target, weight = (0, 3, 3), (9, 8, 2), (0.1, 0.2, 0.3)
    there, back = shortest_path(cost, source, target, weight), shortest_path(cost, target, source, weight)

    assert price(there, cost, weight) + cost[target] == pytest.approx(price(back, cost, weight) + cost[source])


def test_same_path_from_any_type_and_memory_order_and_the_input_is_left_alone():
    cost = np.random.default_rng(5).integers(0, 9, (9, 8, 7)).astype(np.float64)
    before = cost.copy()
    expected = shortest_path(cost, (0, 0, 0), (8, 7, 6), (1, 1, 1))
    twice = np.repeat(cost, 2, axis=1)[:, ::2]

    for same in (cost.astype(np.float32), cost.astype(np.uint8), np.asfortranarray(cost), twice):
        np.testing.assert_array_equal(shortest_path(same, [0, 0, 0], (8, 7, 6), [1, 1, 1]), expected)
    np.testing.assert_array_equal(cost, before)


def test_negative_zero_is_zero():
    rng = np.random.default_rng(6)
    for _ in range(40):
        cost, ends = rng.random((6, 5, 4)), rng.integers(0, 4, (2, 3))
        cost[tuple(ends.T)] = -0.0
        assert_cheapest(cost, *ends, (0.0, 0.5, 0.1))


def test_searches_side_by_side_find_what_each_finds_alone():
    cost = np.random.default_rng(7).random((30, 30, 15))
    jobs = [((0, i, 7), (29, 29 - i, 7)) for i in range(0, 30, 3)]
    alone = [shortest_path(cost, *ends, (0.1, 0.1, 0.1)) for ends in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda ends: shortest_path(cost, *ends, (0.1, 0.1, 0.1)), jobs))

    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


GOOD = {"vertex_cost": np.ones((3, 4, 5)), "source": (0, 0, 0), "target": (2, 3, 4), "step_weight": (1, 1, 1)}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"vertex_cost": np.ones((3, 4))}, r"vertex_cost has shape \(3, 4\); expected \(X, Y, Z\)"),
        ({"vertex_cost": np.ones((3, 0, 5))}, r"vertex_cost has shape \(3, 0, 5\).*no empty axis"),
        ({"vertex_cost": np.full((3, 4, 5), -0.1)}, r"vertex_cost ranges over \[-0.1, -0.1\]"),
        ({"vertex_cost": np.full((3, 4, 5), np.nan)}, r"vertex_cost ranges over \[nan, nan\]"),
        ({"vertex_cost": np.full((3, 4, 5), np.inf)}, r"vertex_cost ranges over \[inf, inf\].*rescale"),
        ({"step_weight": (1, 1)}, r"step_weight is \(1, 1\); expected three"),
        ({"step_weight": (1, -1, 1)}, r"step_weight is \(1, -1, 1\)"),
        ({"step_weight": (1, np.nan, 1)}, r"step_weight is \(1, nan, 1\)"),
        ({"step_weight": (1, np.inf, 1)}, r"step_weight is \(1, inf, 1\)"),
        ({"source": (0, 0)}, r"source is \(0, 0\); expected a voxel as three whole numbers"),
        ({"target": (0.0, 1.0, 2.0)}, r"target is \(0.0, 1.0, 2.0\); expected a voxel as three whole numbers"),
        ({"source": (0, -1, 0)}, r"source \[0, -1, 0\] is outside the volume of shape \(3, 4, 5\)"),
        ({"target": (3, 0, 0)}, r"target \[3, 0, 0\] is outside the volume"),
    ],
)
def test_bad_argument_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        shortest_path(**(GOOD | bad))
