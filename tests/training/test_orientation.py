"""Scans are mirrored only along axes without a common orientation of structures."""

import numpy as np
import pytest

from lib.training.orientation import MIN_STRUCTURES, OFF_CENTRE, symmetric_axes
from lib.training.structures import StructureExtremes

SCAN_SHAPE = np.array([80, 90, 60])
# Ends of a structure in its box, from -1 to 1, without symmetry.
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
    """Make similar structures with noise, randomly mirrored along some axes.

    Args:
        centre: position of the structures in their scans, from -1 to 1.
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


def axes(*chosen):
    return tuple(axis in chosen for axis in range(3))


@pytest.mark.parametrize("count", [20, 50])
@pytest.mark.parametrize("either_way", [(), (0,), (1, 2), (0, 1, 2)])
def test_axes_without_orientation_are_found(either_way, count):
    found = [symmetric_axes(structures(count, either_way, seed=seed)) for seed in range(20)]

    assert np.mean([found_axes == axes(*either_way) for found_axes in found]) >= 0.8


def test_structures_without_a_common_shape_have_no_orientation():
    assert symmetric_axes(structures(60, noise=3.0)) == axes(0, 1, 2)


@pytest.mark.parametrize("axis", range(3))
def test_structure_on_one_side_of_its_scan_is_not_mirrored_to_the_other(axis):
    centre = np.zeros(3)
    centre[axis] = 3 * OFF_CENTRE

    assert symmetric_axes(structures(40, (0, 1, 2), centre=centre)) == axes(*{0, 1, 2} - {axis})


def test_structures_near_the_middle_are_mirrored():
    assert symmetric_axes(structures(40, (0, 1, 2), centre=(0.5 * OFF_CENTRE,) * 3)) == axes(0, 1, 2)


def test_axis_is_symmetric_only_if_it_is_for_every_label():
    tumours, organs = structures(40, (0, 1, 2)), structures(40, (0,), label=2)

    assert symmetric_axes([*tumours, *organs]) == axes(0)


@pytest.mark.parametrize("few", [[], structures(MIN_STRUCTURES - 1, noise=3.0)])
def test_with_few_structures_no_axis_is_symmetric(few):
    assert symmetric_axes(few) == axes()
    assert symmetric_axes([*structures(40, (0, 1, 2), label=2), *few[:1]]) == (axes() if few else axes(0, 1, 2))


@pytest.mark.parametrize("size", [(1, 1, 1), (20, 1, 16)])
def test_flat_structures_are_accepted(size):
    flat = structures(6, size=np.array(size) - 1)

    assert all(isinstance(axis, bool) for axis in symmetric_axes(flat))
