"""How far two readers agree, compared with what loops over all voxels and their corners in the patient find."""

from itertools import product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lib.annotations.agreement import agreement, label_agreements, slices_of_largest_difference
from lib.geometry.image_geometry import ImageGeometry
from tests.exchange.studies import GEOMETRIES

SHAPES = st.tuples(*[st.integers(1, 6)] * 3)
AFFINES = st.sampled_from(sorted(GEOMETRIES)).map(GEOMETRIES.get)


@st.composite
def pairs(draw, values=2):
    """Draw two label maps on the grid of one image."""
    shape = draw(SHAPES)
    maps = [draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, values - 1))) for _ in range(2)]
    for one in maps:
        one *= draw(st.sampled_from([0, 1, 1, 1]))  # an empty one now and then
    return *maps, ImageGeometry(shape, draw(AFFINES))


def brute_dice(one, other):
    voxels = [{v for v in product(*map(range, mask.shape)) if mask[v]} for mask in (one, other)]
    total = sum(map(len, voxels))
    return 1.0 if total == 0 else 2 * len(voxels[0] & voxels[1]) / total


def face_mm(mask, geometry, axis, end):
    """Return the extent of a mask along an axis of the image, from the corners of its voxels."""
    direction = geometry.affine_ras[:3, axis] / np.linalg.norm(geometry.affine_ras[:3, axis])
    corners = [
        nib.affines.apply_affine(geometry.affine_ras, np.array(voxel) + offset) @ direction
        for voxel in np.argwhere(mask)
        for offset in product((-0.5, 0.5), repeat=3)
    ]
    return max(corners) if end else min(corners)


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_is_that_of_the_voxels_in_the_patient(pair):
    one, other, geometry = pair[0] > 0, pair[1] > 0, pair[2]

    found = agreement(one, other, geometry)

    assert found.dice == pytest.approx(brute_dice(one, other))
    if one.any() and other.any():
        expected = {
            geometry.end_names[axis][end]: abs(face_mm(one, geometry, axis, end) - face_mm(other, geometry, axis, end))
            for axis in range(3)
            for end in range(2)
        }
        assert found.ends_mm == pytest.approx(expected, abs=1e-6)
        assert found.largest_mm == pytest.approx(max(expected.values()), abs=1e-6)
    elif one.any() or other.any():
        assert (found.dice, found.ends_mm, found.largest_mm) == (0, {}, None)
    else:
        assert found.dice == 1 and found.largest_mm == 0 and len(found.ends_mm) == 6


@settings(max_examples=50, deadline=None)
@given(pairs())
def test_is_the_same_from_both_sides_and_whole_with_itself(pair):
    one, other, geometry = pair[0] > 0, pair[1] > 0, pair[2]

    assert agreement(one, other, geometry) == agreement(other, one, geometry)
    assert agreement(one, one, geometry).disagreement == (0, 0)


@settings(max_examples=50, deadline=None)
@given(pairs(values=4))
def test_labels_are_compared_each_for_itself(pair):
    one, other, geometry = pair

    found = label_agreements(one, other, ("a", "b", "c"), geometry)

    assert found == {label: agreement(one == n, other == n, geometry) for n, label in enumerate("abc", start=1)}


def test_ends_are_named_by_the_patient():
    one, other = np.zeros((8, 8, 8), bool), np.zeros((8, 8, 8), bool)
    one[2:5, 2:5, 2:5] = other[2:7, 2:5, 2:5] = True
    affine = np.diag([-0.5, -2.0, 3.0, 1.0])  # i towards the left

    found = agreement(one, other, ImageGeometry((8, 8, 8), affine))

    assert found.ends_mm == {"left": 1, "right": 0, "anterior": 0, "posterior": 0, "inferior": 0, "superior": 0}


def test_an_empty_mask_disagrees_most():
    empty, small, large = (np.zeros((8, 8, 8), bool) for _ in range(3))
    small[3:5, 3:5, 3:5] = large[2:6, 2:6, 2:6] = True
    geometry = ImageGeometry((8, 8, 8), np.eye(4))

    of_pairs = [agreement(*pair, geometry).disagreement for pair in [(small, small), (small, large), (empty, small)]]

    assert of_pairs == sorted(of_pairs) and len(set(of_pairs)) == 3


@settings(max_examples=50, deadline=None)
@given(pairs(values=3))
def test_slices_hold_the_largest_difference(pair):
    one, other, _ = pair

    slices = slices_of_largest_difference([one, other])

    for axis, number in enumerate(slices):
        counts = [int((one.take(n, axis) != other.take(n, axis)).sum()) for n in range(one.shape[axis])]
        if max(counts):
            assert counts[number] == max(counts)
        assert 0 <= number < one.shape[axis]
