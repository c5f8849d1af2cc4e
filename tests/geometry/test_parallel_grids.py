"""Linear interpolation between parallel grids, against SciPy's in three dimensions at once."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lib.geometry.parallel_grids import ParallelGrids

SOURCE_SHAPE, TARGET_SHAPE = (14, 11, 9), (20, 8, 13)
TURN = Rotation.from_euler("xyz", [8, -12, 15], degrees=True).as_matrix()
ORDERS = [(0, 1, 2), (2, 0, 1), (1, 0, 2)]


def affine(matrix, centre_voxel):
    """Return an affine with the centre of the grid at a fixed place."""
    result = np.eye(4)
    result[:3, :3] = matrix
    result[:3, 3] = [10, -20, 30] - matrix @ centre_voxel
    return result


def grids(order, signs=(1, -1, -1), spacing_mm=(0.8, 1.3, 2.0)):
    source = affine(TURN * [1.0, 1.1, 1.7], np.array([6.3, 5.2, 4.1]))
    target = affine((TURN * signs * spacing_mm)[:, order], np.array([9, 4, 6]))
    return target, source


def scipy_values(source, target_affine, source_affine):
    voxels = np.indices(TARGET_SHAPE).reshape(3, -1)
    matrix = np.linalg.inv(source_affine) @ target_affine
    places = matrix[:3, :3] @ voxels + matrix[:3, 3:]
    return ndimage.map_coordinates(source, places, order=1, mode="nearest").reshape(TARGET_SHAPE)


@pytest.mark.parametrize("order", ORDERS)
def test_values_are_those_of_trilinear_interpolation(order):
    target, source = grids(order)
    values = np.random.default_rng(0).normal(size=(2, *SOURCE_SHAPE)).astype(np.float32)

    found = ParallelGrids.of(target, source).interpolated(torch.from_numpy(values), (0, 0, 0), (0, 0, 0), TARGET_SHAPE)

    for channel, expected in zip(found, values, strict=True):
        np.testing.assert_allclose(channel, scipy_values(expected, target, source), atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_a_box_needs_no_more_of_the_source_than_its_range(order):
    target, source = grids(order)
    parallel = ParallelGrids.of(target, source)
    values = torch.randn(*SOURCE_SHAPE, generator=torch.Generator().manual_seed(0))
    start, stop = (3, 2, 4), (9, 7, 10)
    part = torch.full(SOURCE_SHAPE, torch.nan)
    ranges = {parallel.source_axes[a]: parallel.source_range(a, start[a], stop[a], SOURCE_SHAPE) for a in range(3)}
    inside = tuple(slice(*ranges[a]) for a in range(3))
    part[inside] = values[inside]

    begin = [ranges[a][0] for a in range(3)]
    found = parallel.interpolated(part[inside], begin, start, stop)

    expected = parallel.interpolated(values, (0, 0, 0), (0, 0, 0), TARGET_SHAPE)
    torch.testing.assert_close(found, expected[tuple(map(slice, start, stop))])
    assert part[inside].numel() < values.numel() / 2


def test_the_same_grid_gives_the_same_values():
    target, _ = grids((0, 1, 2))
    values = torch.randn(*TARGET_SHAPE)

    found = ParallelGrids.of(target, target).interpolated(values, (0, 0, 0), (0, 0, 0), TARGET_SHAPE)

    torch.testing.assert_close(found, values, atol=1e-6, rtol=0)


def test_axes_that_are_not_parallel_are_refused():
    target, source = grids((0, 1, 2))
    target[:3, :3] = Rotation.from_euler("z", 1, degrees=True).as_matrix() @ target[:3, :3]

    with pytest.raises(ValueError, match="not parallel"):
        ParallelGrids.of(target, source)
