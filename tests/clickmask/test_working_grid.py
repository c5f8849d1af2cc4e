import numpy as np
import pytest

from lib.clickmask.working_grid import WorkingGrid
from lib.geometry.boxes import Box

BOX = Box((5, 2, 3), (45, 32, 15))


def test_a_small_box_keeps_the_voxels_of_the_image():
    image = np.random.default_rng(0).random((50, 40, 20))
    grid = WorkingGrid.over(BOX, (1.0, 1.0, 2.0), max_voxels=40 * 30 * 12)

    assert grid.factors == (1, 1, 1)
    assert grid.spacing_mm == (1.0, 1.0, 2.0)
    np.testing.assert_allclose(grid.averaged(image), image[BOX.slices], rtol=1e-6)
    assert grid.points(np.array([5, 2, 4])).tolist() == [0, 0, 1]


@pytest.mark.parametrize("max_voxels", [1, 100, 3000, 14399])
def test_a_large_box_is_coarsened_until_it_fits(max_voxels):
    grid = WorkingGrid.over(BOX, (1.0, 1.0, 2.0), max_voxels)

    assert np.prod(grid.shape) <= max_voxels
    assert grid.averaged(np.zeros((50, 40, 20))).shape == grid.shape


def test_thick_slices_are_coarsened_last():
    grid = WorkingGrid.over(BOX, (1.0, 1.0, 5.0), max_voxels=14 * 10 * 12)

    assert grid.factors == (3, 3, 1)
    assert grid.spacing_mm == (3.0, 3.0, 5.0)


def test_a_coarse_voxel_is_the_mean_of_the_image_voxels_whose_points_it_holds():
    image = np.random.default_rng(0).random((50, 40, 20))
    grid = WorkingGrid(BOX, (4, 3, 2), (1.0, 1.0, 1.0))

    voxels = np.argwhere(np.ones(image.shape))
    held = voxels[(grid.points(voxels) == (2, 5, 1)).all(axis=1)]

    assert len(held) == 4 * 3 * 2
    assert grid.averaged(image)[2, 5, 1] == pytest.approx(image[tuple(held.T)].mean())


def test_blocks_cut_off_by_the_box_do_not_take_in_zeros():
    grid = WorkingGrid(Box((0, 0, 0), (7, 7, 7)), (4, 4, 4), (1.0, 1.0, 1.0))

    np.testing.assert_allclose(grid.averaged(np.full((9, 9, 9), 3.0)), 3.0)


@pytest.mark.parametrize("factors", [(2, 2, 1), (3, 3, 3), (4, 3, 2)])
def test_a_mask_comes_back_in_its_place_within_half_a_coarse_voxel(factors):
    grid = WorkingGrid(Box((0, 0, 0), (48, 48, 48)), factors, (1.0, 1.0, 1.0))
    radius_voxels = np.linalg.norm(np.moveaxis(np.indices((48, 48, 48)), 0, -1) - 23.5, axis=-1)

    fine = grid.on_image_voxels(grid.averaged(radius_voxels < 15) > 0.5)

    tolerance = max(factors) / 2 * np.sqrt(3)
    assert fine[radius_voxels < 15 - tolerance].all()
    assert not fine[radius_voxels > 15 + tolerance].any()
    np.testing.assert_allclose(np.argwhere(fine).mean(axis=0), 23.5, atol=0.3)


def test_repeated_voxels_are_the_blocks_that_the_points_fall_into():
    grid = WorkingGrid(BOX, (4, 3, 5), (1.0, 1.0, 1.0))
    mask = np.random.default_rng(0).random(grid.shape) < 0.5

    blocks = grid.repeated(mask)

    voxels = np.argwhere(np.ones(BOX.shape))
    np.testing.assert_array_equal(blocks.ravel(), mask[tuple(grid.points(voxels + BOX.start).T)])
