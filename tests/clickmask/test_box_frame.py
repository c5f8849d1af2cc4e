"""Positions in a structure's box, against where voxels lie in the patient in millimetres."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lib.annotations.extreme_points import mask_extremes
from lib.clickmask.box_frame import CONTEXT, SIDE, BoxFrame, sample_indices, sample_positions
from lib.clickmask.working_grid import WorkingGrid
from lib.geometry.boxes import Box
from tests.clickmask.bodies import TURNS, lopsided, turned

SPACING_MM = (0.8, 1.1, 2.0)
PLAIN = np.diag([*SPACING_MM, 1.0])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [15, -20, 10], degrees=True).as_matrix() * SPACING_MM
OBLIQUE[:3, 3] = 12.0, -80.0, 33.0
AFFINES = pytest.mark.parametrize("affine", [PLAIN, OBLIQUE], ids=["straight", "oblique"])


def frame_of(mask, affine):
    return BoxFrame.around(mask_extremes(mask), affine)


@AFFINES
@pytest.mark.parametrize(("axes", "signs"), TURNS)
def test_position_does_not_depend_on_how_the_image_is_stored(affine, axes, signs):
    mask = lopsided()
    other, other_affine = turned(mask, affine, axes, signs)
    voxels = np.argwhere(mask)[::97]
    ras_mm = voxels @ affine[:3, :3].T + affine[:3, 3]
    same_voxels = (ras_mm - other_affine[:3, 3]) @ np.linalg.inv(other_affine[:3, :3]).T

    np.testing.assert_allclose(
        frame_of(other, other_affine).positions(same_voxels), frame_of(mask, affine).positions(voxels), atol=1e-9
    )


def test_positions_grow_to_the_right_front_and_top():
    frame = frame_of(lopsided(), PLAIN)
    middle = (frame.low_voxel + frame.high_voxel) / 2

    for axis, step_mm in enumerate(np.eye(3)):
        moved = frame.positions(middle + step_mm / SPACING_MM) - frame.positions(middle)
        assert moved[axis] > 0 and np.delete(moved, axis) == pytest.approx(0)


def test_faces_of_the_box_lie_at_0_and_1():
    mask = np.zeros((9, 9, 9), bool)
    mask[2:5, 3:4, 1:8] = True
    frame = frame_of(mask, PLAIN)

    np.testing.assert_allclose(frame.positions(np.array([1.5, 2.5, 0.5])), 0)
    np.testing.assert_allclose(frame.positions(np.array([4.5, 3.5, 7.5])), 1)


@pytest.mark.parametrize(("axes", "signs"), TURNS)
def test_extremes_are_named_by_the_patient(axes, signs):
    mask = lopsided()
    other, other_affine = turned(mask, PLAIN, axes, signs)
    extremes = frame_of(other, other_affine).extremes(mask_extremes(other))

    np.testing.assert_allclose(extremes, frame_of(mask, PLAIN).extremes(mask_extremes(mask)), atol=1e-9)
    for axis in range(3):
        assert (extremes[axis, 0, axis], extremes[axis, 1, axis]) == (
            extremes[..., axis].min(),
            extremes[..., axis].max(),
        )


@AFFINES
@pytest.mark.parametrize(("axes", "signs"), TURNS)
def test_volume_in_the_frame_does_not_depend_on_how_the_image_is_stored(affine, axes, signs):
    mask = lopsided()
    other, other_affine = turned(mask, affine, axes, signs)

    expected = frame_of(mask, affine).sampled(mask, np.zeros(3))
    np.testing.assert_allclose(frame_of(other, other_affine).sampled(other, np.zeros(3)), expected, atol=1e-5)
    assert 0.05 < expected.mean() < 0.95


def test_size_and_spacing_do_not_matter():
    small, large = lopsided(), lopsided((120, 110, 130), scale=3.0, shift=(4, -7, 9))

    one = frame_of(small, PLAIN).sampled(small, np.zeros(3))
    other = frame_of(large, OBLIQUE).sampled(large, np.zeros(3))
    assert np.abs(one - other).mean() < 0.02


def test_part_of_an_image_lies_where_the_image_does():
    image = np.random.default_rng(0).normal(size=(30, 36, 28))
    frame = frame_of(lopsided(), OBLIQUE)

    whole = frame.sampled(image, np.zeros(3))
    padded = frame.sampled(np.pad(image, 3, mode="edge"), np.full(3, -3))
    np.testing.assert_allclose(padded, whole, atol=1e-4)


@pytest.mark.parametrize(("axes", "signs"), TURNS)
def test_way_back_to_voxels_is_the_way_there(axes, signs):
    mask, affine = turned(lopsided(), OBLIQUE, axes, signs)
    frame = frame_of(mask, affine)
    x, y, z = mask.shape
    grid = WorkingGrid.over(Box((0, 0, 0), (x, y, z)), SPACING_MM, 10**6)
    line = sample_positions()
    for axis, plane in enumerate(np.meshgrid(line, line, line, indexing="ij")):
        found = frame.on_grid(plane.astype(np.float32), grid)
        voxels = np.argwhere(mask)
        expected = frame.positions(voxels)[:, axis]
        np.testing.assert_allclose(found[mask], expected, atol=1e-4)


def test_coarse_grid_is_read_in_the_middle_of_its_voxels():
    mask = lopsided()
    frame = frame_of(mask, PLAIN)
    box = Box((3, 2, 5), (29, 34, 27))
    grid = WorkingGrid.over(box, SPACING_MM, 2000)
    assert max(grid.factors) > 1
    right = np.broadcast_to(sample_positions()[:, None, None], (SIDE,) * 3).astype(np.float32)

    found = frame.on_grid(right, grid)
    middles = box.start[0] + grid.factors[0] * np.arange(grid.shape[0]) + (grid.factors[0] - 1) / 2
    expected = (middles - frame.low_voxel[0]) / (frame.high_voxel[0] - frame.low_voxel[0])
    inside = (expected > -CONTEXT + 0.05) & (expected < 1 + CONTEXT - 0.05)
    np.testing.assert_allclose(found[inside, 0, 0], expected[inside], atol=1e-4)


def test_indices_of_samples_are_those_of_their_positions():
    np.testing.assert_allclose(sample_indices(sample_positions()), np.arange(SIDE), atol=1e-9)
