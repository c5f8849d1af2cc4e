import numpy as np
import pytest

from lib.geometry.boxes import Box


def test_tight_box_holds_the_points_and_touches_them():
    box = Box.around(np.array([[3, 5, 7], [9, 4, 7]]))

    assert (box.start, box.stop, box.shape) == ((3, 4, 7), (10, 6, 8), (7, 2, 1))


def test_relaxed_box_grows_and_stops_at_the_border():
    box = Box((1, 10, 5), (4, 12, 9))

    assert box.relaxed(4, (20, 14, 20)) == Box((0, 6, 1), (8, 14, 13))
    assert box.relaxed((0, 1, 2), (20, 20, 20)) == Box((1, 9, 3), (4, 13, 11))


@pytest.mark.parametrize("start", [-30, 30])
def test_box_beyond_the_image_is_empty(start):
    box = Box((start,) * 3, (start + 5,) * 3).relaxed(2, (10, 10, 10))

    assert np.zeros((10, 10, 10))[box.slices].size == 0


def test_no_points_have_no_box():
    with pytest.raises(ValueError, match=r"shape \(0, 3\)"):
        Box.around(np.empty((0, 3)))
