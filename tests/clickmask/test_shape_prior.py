import numpy as np
import pytest
from scipy.spatial import Delaunay

from lib.clickmask.shape_prior import extreme_point_gauge

SHAPE = (24, 20, 16)
EXTREMES = np.array([[[4, 9, 7], [18, 12, 6]], [[12, 3, 8], [9, 15, 5]], [[10, 8, 3], [13, 11, 12]]])
LOW, HIGH = np.array([4, 3, 3]), np.array([18, 15, 12])
VOXELS = np.moveaxis(np.indices(SHAPE), 0, -1)
IN_BOX = ((VOXELS >= LOW) & (VOXELS <= HIGH)).all(axis=-1)


def test_surface_lies_between_the_hull_of_the_clicks_and_their_box():
    """The hull by Delaunay triangulation, which is no part of the prior."""
    inside_hull = Delaunay(EXTREMES.reshape(6, 3)).find_simplex(VOXELS) >= 0

    inside = extreme_point_gauge(EXTREMES, SHAPE, shrinkage=0.0) <= 1

    assert inside[inside_hull].all() and inside[tuple(EXTREMES.reshape(6, 3).T)].all()
    assert not inside[~IN_BOX].any()
    assert inside_hull.sum() < inside.sum() < IN_BOX.sum()


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_surface_touches_every_face_of_the_box(shrinkage):
    inside = np.argwhere(extreme_point_gauge(EXTREMES, SHAPE, shrinkage=shrinkage) <= 1)

    np.testing.assert_array_equal(inside.min(axis=0), LOW)
    np.testing.assert_array_equal(inside.max(axis=0), HIGH)


@pytest.mark.parametrize("shrinkage", [0.0, 0.4])
def test_surface_touches_a_face_where_it_was_clicked_or_nearer_to_its_middle(shrinkage):
    gauge = extreme_point_gauge(EXTREMES, SHAPE, shrinkage=shrinkage)

    for axis in range(3):
        for end, face in enumerate((LOW, HIGH)):
            on_face = np.argwhere(VOXELS[..., axis] == face[axis])
            touching = on_face[gauge[tuple(on_face.T)] <= 1].mean(axis=0)
            middle = (LOW + HIGH) / 2
            expected = middle + (1 - shrinkage) * (EXTREMES[axis, end] - middle)
            assert np.delete(np.abs(touching - expected), axis).max() <= 1.0


def test_it_grows_from_the_middle_outwards():
    gauge = extreme_point_gauge(EXTREMES, SHAPE, shrinkage=0.2)
    start = np.array(np.unravel_index(gauge.argmin(), SHAPE))

    for end in np.argwhere(~IN_BOX)[::97]:
        ray = np.rint(start + np.linspace(0, 1, 9)[:, None] * (end - start)).astype(int)
        along = gauge[tuple(ray.T)]
        assert (np.diff(along) > -0.15).all(), "rays are rounded to voxels"
        assert along[-1] > 1


def test_a_structure_is_followed_where_it_is_oblique():
    """Clicks along a diagonal: the prior is nearer to the diagonal's ends than to the box's other corners."""
    extremes = np.array([[[2, 3, 8], [17, 16, 8]], [[3, 2, 8], [16, 17, 8]], [[9, 9, 6], [10, 10, 9]]])

    gauge = extreme_point_gauge(extremes, (20, 20, 16), shrinkage=0.2)

    assert gauge[4, 4, 8] < 1 < gauge[4, 15, 8]


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 0, 1), (2, 1, 0)])
def test_it_turns_with_the_axes(axes):
    turned = EXTREMES[list(axes)][:, :, list(axes)]

    expected = extreme_point_gauge(EXTREMES, SHAPE, shrinkage=0.2).transpose(axes)

    gauge = extreme_point_gauge(turned, tuple(np.array(SHAPE)[list(axes)]), shrinkage=0.2)
    np.testing.assert_allclose(gauge, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", range(3))
def test_it_flips_with_an_axis(axis):
    flipped = EXTREMES.copy()
    flipped[..., axis] = SHAPE[axis] - 1 - flipped[..., axis]
    flipped[axis] = flipped[axis, ::-1]

    expected = np.flip(extreme_point_gauge(EXTREMES, SHAPE, shrinkage=0.2), axis)

    np.testing.assert_allclose(extreme_point_gauge(flipped, SHAPE, shrinkage=0.2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "extremes",
    [
        np.array([[[5, 5, 5], [9, 9, 9]]] * 3),
        np.array([[[5, 7, 7], [9, 7, 7]], [[7, 5, 7], [7, 9, 7]], [[7, 7, 7], [7, 7, 7]]]),
        np.array([[[5, 5, 7], [9, 9, 7]], [[5, 5, 7], [9, 9, 7]], [[7, 7, 7], [7, 7, 7]]]),
        np.array([[[7, 7, 7]] * 2] * 3),
        np.array([[[3, 9, 6], [12, 5, 7]], [[11, 3, 8], [4, 11, 5]], [[9, 7, 2], [6, 7, 12]]]),
        np.array([[[4, 7, 9], [10, 7, 5]], [[7, 4, 10], [7, 10, 4]], [[8, 10, 3], [6, 4, 11]]]),
    ],
    ids=["all on a line", "one slice", "a line in one slice", "one voxel", "oblique", "steep"],
)
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_flat_clicks_have_a_body(extremes, shrinkage):
    points = extremes.reshape(6, 3)

    inside = extreme_point_gauge(extremes, (15, 15, 15), shrinkage=shrinkage) <= 1

    voxels = np.argwhere(inside)
    assert inside[tuple(np.rint(points.mean(axis=0)).astype(int))]
    assert (voxels >= points.min(axis=0)).all() and (voxels <= points.max(axis=0)).all()


def test_a_line_of_clicks_is_no_thinner_than_a_tenth_of_its_box():
    extremes = np.array([[[5, 5, 5], [34, 34, 34]]] * 3)

    inside = extreme_point_gauge(extremes, (40, 40, 40), shrinkage=0.0) <= 1

    assert inside.sum() > 0.1 * 30**3


@pytest.mark.parametrize("shrinkage", [-0.1, 1.0])
def test_shrinkage_out_of_range_is_refused(shrinkage):
    with pytest.raises(ValueError, match=f"shrinkage is {shrinkage}"):
        extreme_point_gauge(EXTREMES, SHAPE, shrinkage=shrinkage)


def test_other_than_six_extremes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(6, 3\); expected \(3, 2, 3\)"):
        extreme_point_gauge(EXTREMES.reshape(6, 3), SHAPE, shrinkage=0.2)
