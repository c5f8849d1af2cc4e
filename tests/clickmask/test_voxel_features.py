"""Features mean the same for structures of any size, in any direction and at any intensity."""

import numpy as np
import pytest

from lib.clickmask.voxel_features import StructureNumbers, VoxelMaps, voxel_features
from lib.geometry.boxes import Box
from lib.supervision.geodesics import extreme_point_geodesics

EXTREMES = np.array([[[4, 9, 7], [18, 12, 6]], [[12, 3, 8], [9, 15, 5]], [[10, 8, 3], [13, 11, 12]]])
SHAPE = (26, 22, 18)
REGION = Box((2, 1, 1), (21, 18, 15))
SPACING = (1.0, 1.0, 2.0)

pytestmark = pytest.mark.filterwarnings("error")


def painted(inside=0.7, outside=0.3, noise=0.03):
    grid = np.ogrid[tuple(slice(n) for n in SHAPE)]
    ball = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, (11, 9, 7.5), (7.5, 6.5, 5), strict=True)) <= 1
    values = np.where(ball, inside, outside) + np.random.default_rng(0).normal(0, noise, SHAPE)
    return ball, np.clip(values, 0, 1).astype(np.float32)


def features(values, extremes=EXTREMES, region=REGION, spacing_mm=SPACING, log_odds=None):
    log_odds = np.where(values > 0.5, 1.0, -1.0).astype(np.float32) if log_odds is None else log_odds
    paths = extreme_point_geodesics(values, extremes, spacing_mm)
    return voxel_features(
        values, extremes, spacing_mm, model_ratio=log_odds / 2, log_odds=log_odds, paths=paths, region=region
    )


def assert_alike(one, other, turn=lambda volume: volume, atol=2e-3):
    for name in VoxelMaps._fields:
        np.testing.assert_allclose(turn(getattr(one.maps, name)), getattr(other.maps, name), atol=atol, err_msg=name)
    np.testing.assert_allclose(one.numbers, other.numbers, atol=1e-5)


def test_each_voxel_of_the_region_has_all_of_them():
    found = features(painted()[1])

    for volume in found.maps:
        assert volume.shape == REGION.shape and volume.dtype == np.float32
        assert np.isfinite(volume).all()
    assert np.isfinite(found.numbers).all()


def test_they_do_not_depend_on_the_unit_of_length():
    values = painted()[1]

    assert_alike(features(values), features(values, spacing_mm=tuple(3 * s for s in SPACING)))


def test_they_do_not_depend_on_which_is_the_brighter_side():
    values = painted()[1]
    log_odds = np.zeros(SHAPE, np.float32)

    assert_alike(features(values, log_odds=log_odds), features(1 - values, log_odds=log_odds), atol=0.2)


@pytest.mark.parametrize("axis", range(3))
def test_they_flip_with_an_axis(axis):
    """But for the roundings of raster scans, which run the other way, and paths of equal cost."""
    values = np.full(SHAPE, 0.5, np.float32)
    flipped = EXTREMES.copy()
    flipped[..., axis] = SHAPE[axis] - 1 - flipped[..., axis]
    flipped[axis] = flipped[axis, ::-1]
    start, stop = list(REGION.start), list(REGION.stop)
    start[axis], stop[axis] = SHAPE[axis] - REGION.stop[axis], SHAPE[axis] - REGION.start[axis]

    one, other = features(values), features(values, flipped, Box(tuple(start), tuple(stop)))

    for name in ("hull", "box", "nearest", "second", "middle"):
        np.testing.assert_allclose(np.flip(getattr(one.maps, name), axis), getattr(other.maps, name), atol=1e-4)
    np.testing.assert_allclose(one.numbers, other.numbers, atol=1e-5)


def test_places_are_in_units_of_the_box():
    found = features(painted()[1]).maps
    start = np.array(REGION.start)
    for end in EXTREMES.reshape(6, 3):
        assert found.nearest[tuple(end - start)] == pytest.approx(0, abs=1e-6)
        assert found.path[tuple(end - start)] == 0
    # From -0.5 to 0.5 voxels beyond the outermost clicks, each axis runs from -1 to 1.
    low, high = EXTREMES.reshape(6, 3).min(axis=0), EXTREMES.reshape(6, 3).max(axis=0)
    corner = 1 - 1 / (high - low + 1)
    assert found.middle[tuple(low - start)] == pytest.approx(np.linalg.norm(corner), rel=1e-5)


def test_second_is_the_next_nearest_extreme_point():
    found = features(painted()[1]).maps
    low, high = EXTREMES.reshape(6, 3).min(axis=0) - 0.5, EXTREMES.reshape(6, 3).max(axis=0) + 0.5
    voxels = np.moveaxis(np.indices(REGION.shape), 0, -1) + REGION.start
    distances = [np.linalg.norm((voxels - end) / ((high - low) / 2), axis=-1) for end in EXTREMES.reshape(6, 3)]

    np.testing.assert_allclose(np.stack([found.nearest, found.second]), np.sort(distances, axis=0)[:2], atol=1e-4)


@pytest.mark.parametrize("inside, outside", [(0.7, 0.3), (0.2, 0.6)])
def test_intensities_as_on_the_paths_speak_for_the_structure(inside, outside):
    ball, values = painted(inside, outside)
    ball = ball[REGION.slices]

    found = features(values).maps

    for ratio in (found.ring_ratio, found.smooth_ring_ratio, found.all_ratio):
        assert np.median(ratio[ball]) > 0 > np.median(ratio[~ball])
    assert np.median(found.intensity_distance[ball]) < np.median(found.intensity_distance[~ball]) - 0.5
    assert np.median(found.gradient_rank[ball]) < np.median(found.gradient_rank[~ball]) - 0.2


def test_shares_are_those_of_the_box():
    values = painted()[1]
    log_odds = np.full(SHAPE, -1.0, np.float32)
    log_odds[4:19, 3:16, 3:8] = 1.0

    assert features(values, log_odds=log_odds).numbers.likely_share == pytest.approx(0.5)


def test_extreme_points_of_a_rod_askew_coincide_and_lie_off_centre():
    rod = np.array([[[3, 3, 3], [18, 16, 14]], [[4, 3, 3], [18, 17, 14]], [[3, 4, 3], [17, 17, 15]]])
    round_one = np.array([[[3, 10, 9], [18, 10, 9]], [[10, 3, 9], [10, 17, 9]], [[10, 10, 3], [10, 10, 15]]])
    values = np.full(SHAPE, 0.5, np.float32)

    everything = Box((0, 0, 0), SHAPE)
    askew, round_body = (features(values, of, everything).numbers for of in (rod, round_one))

    assert askew.coincidence < 0.3 < round_body.coincidence
    assert askew.off_centre > 0.7 > 0.1 > round_body.off_centre
    assert askew.elongation > round_body.elongation


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_image_tells_nothing_of_a_voxel(value):
    found = features(np.full(SHAPE, value, np.float32), log_odds=np.zeros(SHAPE, np.float32))

    assert np.ptp(found.maps.ring_ratio) == np.ptp(found.maps.all_ratio) == 0
    assert np.isfinite(np.stack(found.maps)).all() and np.isfinite(found.numbers).all()


def test_one_voxel():
    point = np.zeros((3, 2, 3), dtype=int)
    one = np.zeros((1, 1, 1), np.float32)

    found = features(one, point, Box((0, 0, 0), (1, 1, 1)), log_odds=one)

    assert np.isfinite(np.stack(found.maps)).all()
    assert np.isfinite(StructureNumbers(*found.numbers)).all()
