"""Sliding windows cover a box with a margin, and are few."""

from itertools import product

import numpy as np
import pytest
import torch

from lib.geometry.boxes import Box
from lib.inference.windows import MARGIN, OVERLAP, WindowGrid

SHAPE, SIZE = (100, 61, 20), (24, 16, 24)
MARGINS = [round(MARGIN * n) for n in SIZE]


def boxes():
    rng = np.random.default_rng(0)
    for _ in range(200):
        ends = np.sort(rng.integers(0, np.array(SHAPE) + 1, size=(2, 3)), axis=0)
        if (ends[0] < ends[1]).all():
            yield Box(tuple(ends[0].tolist()), tuple(ends[1].tolist()))


def windows(grid):
    return [Box(corner, tuple(np.add(corner, grid.size).tolist())) for corner in product(*grid.starts)]


def test_windows_cover_the_box_with_a_margin_inside_the_image():
    for box in boxes():
        seen = WindowGrid.over(box, SHAPE, SIZE).box
        for axis, margin in enumerate(MARGINS):
            assert seen.start[axis] <= max(0, box.start[axis] - margin)
            assert seen.stop[axis] >= min(SHAPE[axis], box.stop[axis] + margin)


def test_neighbours_overlap_and_windows_stay_inside_a_larger_image():
    for box in boxes():
        for starts, size, length in zip(WindowGrid.over(box, SHAPE, SIZE).starts, SIZE, SHAPE, strict=True):
            steps = np.diff(starts)
            assert (steps > 0).all() and (steps <= np.ceil(size * (1 - OVERLAP))).all()
            if length >= size:
                assert starts[0] >= 0 and starts[-1] + size <= length


def test_a_small_box_is_in_the_middle_of_one_window():
    grid = WindowGrid.over(Box((40, 30, 2), (50, 36, 8)), SHAPE, SIZE)

    assert grid.starts == ((33,), (25,), (-2,))
    assert len(windows(grid)) == 1


def test_a_box_never_takes_more_windows_than_the_image():
    whole = len(windows(WindowGrid.over(Box((0, 0, 0), SHAPE), SHAPE, SIZE)))

    counts = [len(windows(WindowGrid.over(box, SHAPE, SIZE))) for box in boxes()]

    assert max(counts) <= whole
    assert np.mean(counts) < whole / 2


def test_an_image_smaller_than_a_window_is_in_its_middle():
    grid = WindowGrid.over(Box((0, 0, 0), (10, 16, 7)), (10, 16, 7), (16, 16, 16))

    assert grid.starts == ((-3,), (0,), (-4,))


@pytest.mark.parametrize("axis", range(3))
def test_total_weight_is_the_sum_over_windows(axis):
    grid = WindowGrid.over(Box((0, 0, 0), SHAPE), SHAPE, SIZE)
    expected = torch.zeros(grid.box.shape[axis])
    for start in grid.starts[axis]:
        first = start - grid.starts[axis][0]
        expected[first : first + SIZE[axis]] += grid.weights[axis]

    torch.testing.assert_close(grid.total_weight(axis), expected)
    assert expected.min() > 0


def test_weights_are_largest_in_the_middle_and_the_same_on_both_sides():
    for weight in WindowGrid.over(Box((0, 0, 0), SHAPE), SHAPE, SIZE).weights:
        torch.testing.assert_close(weight, weight.flip(0))
        half = weight[: len(weight) // 2]
        assert (half.diff() > 0).all()
