"""Scans are mirrored along axes on which their structures might as well be mirror images, and no others."""

import numpy as np
import pytest

from lib.training.orientation import MIN_STRUCTURES, OFF_CENTRE, symmetric_axes
from lib.training.structures import StructureExtremes

SCAN_SHAPE = np.array([80, 90, 60])
# Of the ends of a structure in its box, from -1 to 1: thick to the right, in front and above.
PATTERN = np.array(
    [
        [[-1, 0.5, 0.4], [1, 0.6, 0.3]],
        [[0.4, -1, 0.5], [0.5, 1, 0.3]],
        [[0.6, 0.4, -1], [0.3, 0.5, 1]],
    ]
)


def mirrored(ends, axis):
    ends = ends.copy()
    ends[..., axis] *= -1
    ends[axis] = ends[axis, ::-1].copy()
    return ends


def structures(count, either_way=(), noise=0.2, centre=(0, 0, 0), size=(20, 30, 16), seed=0, label=1):
    """Alike but for noise; by chance mirrored along some axes.

    Args:
        centre: of the structures in their scans, from -1 to 1.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        ends = PATTERN + rng.normal(0, noise, PATTERN.shape)
        for axis in range(3):
            ends[axis, :, axis] = -1, 1
        for axis in either_way:
            ends = mirrored(ends, axis) if rng.random() < 0.5 else ends
        middle = (SCAN_SHAPE - 1) / 2 * (1 + np.array(centre)) + rng.normal(0, 1, 3)
        ends = middle + ends * np.array(size) / 2
        found.append(StructureExtremes(label, ends, SCAN_SHAPE, np.array([1.0, 1.0, 2.0])))
    return found


def axes(*wanted):
    return tuple(axis in wanted for axis in range(3))


@pytest.mark.parametrize("count", [20, 50])
@pytest.mark.parametrize("either_way", [(), (0,), (1, 2), (0, 1, 2)])
def test_axes_along_which_structures_come_either_way_are_found(either_way, count):
    found = [symmetric_axes(structures(count, either_way, seed=seed)) for seed in range(20)]

    assert np.mean([axes == tuple(axis in either_way for axis in range(3)) for axes in found]) >= 0.8


def test_structures_without_any_shape_in_common_come_either_way():
    assert symmetric_axes(structures(60, noise=3.0)) == axes(0, 1, 2)


@pytest.mark.parametrize("axis", range(3))
def test_structure_that_always_lies_on_one_side_of_its_scan_is_not_mirrored_to_the_other(axis):
    """Such as the left one of two alike."""
    centre = np.zeros(3)
    centre[axis] = 3 * OFF_CENTRE

    assert symmetric_axes(structures(40, (0, 1, 2), centre=centre)) == axes(*{0, 1, 2} - {axis})


def test_by_a_little_off_the_middle_is_in_the_middle():
    assert symmetric_axes(structures(40, (0, 1, 2), centre=(0.5 * OFF_CENTRE,) * 3)) == axes(0, 1, 2)


def test_every_label_has_to_come_either_way():
    tumours, organs = structures(40, (0, 1, 2)), structures(40, (0,), label=2)

    assert symmetric_axes([*tumours, *organs]) == axes(0)


@pytest.mark.parametrize("few", [[], structures(MIN_STRUCTURES - 1, noise=3.0)])
def test_few_structures_tell_nothing(few):
    assert symmetric_axes(few) == axes()
    assert symmetric_axes([*structures(40, (0, 1, 2), label=2), *few[:1]]) == (axes() if few else axes(0, 1, 2))


@pytest.mark.parametrize("size", [(1, 1, 1), (20, 1, 16)])
def test_flat_structures_are_no_trouble(size):
    flat = structures(6, size=np.array(size) - 1)

    assert all(isinstance(axis, bool) for axis in symmetric_axes(flat))
