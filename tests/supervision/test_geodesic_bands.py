"""A band is the path and what lies close to it, but nothing near the faces of the box."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from lib.supervision.boxes import Box
from lib.supervision.geodesic_bands import geodesic_band

SHAPE = (24, 20, 16)
BOX = Box((3, 4, 2), (21, 17, 14))


def crooked_path():
    """From face to face of the box along the first axis."""
    i = np.arange(3, 21)
    return np.stack([i, 10 + np.rint(3 * np.sin(i / 3)).astype(int), 8 + (i % 3)], axis=1)


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_band_is_what_distances_say(radius):
    path = crooked_path()
    on_path = np.zeros(SHAPE, bool)
    on_path[tuple(path.T)] = True
    near = distance_transform_edt(~on_path) <= radius
    deep = np.zeros(SHAPE, bool)
    deep[tuple(slice(a + radius, b - radius) for a, b in zip(BOX.start, BOX.stop, strict=True))] = True

    band = geodesic_band(path, radius, BOX, SHAPE)

    expected = on_path | (near & deep)
    np.testing.assert_array_equal(band, np.argwhere(expected))


def test_band_stays_in_a_patch_that_cuts_the_box():
    cut = Box((-6, 4, 2), (12, 17, 30))
    path = np.array([[0, 10, 8], [1, 10, 8]])

    band = geodesic_band(path, 2, cut, SHAPE)

    assert (band >= 0).all() and (band < SHAPE).all()
    assert len(band) > len(path)


def test_a_structure_thinner_than_the_band_keeps_its_path():
    thin = Box((3, 9, 7), (21, 11, 9))
    path = np.stack([np.arange(3, 21), np.full(18, 9), np.full(18, 8)], axis=1)

    np.testing.assert_array_equal(geodesic_band(path, 2, thin, SHAPE), path)


def test_an_empty_path_has_an_empty_band():
    assert geodesic_band(np.empty((0, 3), np.int64), 1, BOX, SHAPE).shape == (0, 3)


def test_a_negative_radius_is_refused():
    with pytest.raises(ValueError, match="radius_voxels is -1"):
        geodesic_band(crooked_path(), -1, BOX, SHAPE)
