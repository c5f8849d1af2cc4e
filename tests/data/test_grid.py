"""Resampling of scans to the grid of the network."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy import ndimage

from lib.data.grid import (
    check_grid_size,
    grid_shape,
    network_image,
    network_label_map,
    points_on_grid,
    z_scored,
)
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, VolumeError
from lib.geometry.volume_size import MAX_VOLUME_VARIABLE

SHAPE = (60, 50, 20)
AFFINE = np.array([[0, 0, 1.5, 10], [-0.5, 0, 0, 20], [0, 0.5, 0, -5], [0, 0, 0, 1.0]])
SPACING_MM = (1.5, 0.5, 0.5)  # of AFFINE, along right, anterior, superior
SPACINGS_MM = [(1.4, 0.6, 0.7), (0.5, 0.5, 3.0), (2.0, 1.0, 0.25)]


def volume(array, affine=AFFINE):
    return Volume(np.asarray(array, dtype=np.float32), ImageGeometry(np.shape(array), affine))


def noise(shape=SHAPE):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def label_blocks():
    array = np.zeros(SHAPE, dtype=np.float32)
    array[10:25, 8:40, 3:9] = 1
    array[25:45, 30:40, 3:12] = 5
    return array


def stored_voxels(affine, shape):
    """Return the positions (3, X, Y, Z) of the voxels of a grid, in voxels of the stored scan."""
    points_ras_mm = apply_affine(affine, np.stack(np.indices(shape), axis=-1))
    return np.moveaxis(apply_affine(np.linalg.inv(AFFINE), points_ras_mm), -1, 0)


# Geometry


@pytest.mark.parametrize("toward", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_axes_point_to_right_anterior_superior(toward, signs):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(toward)] * signs

    _, on_network = network_image(volume(noise((12, 14, 16)), affine), (1.0, 1.0, 1.0))

    assert nib.aff2axcodes(on_network) == ("R", "A", "S")


@pytest.mark.parametrize("spacing_mm", [*SPACINGS_MM, (20.0, 20.0, 20.0)])
def test_voxels_have_the_requested_spacing(spacing_mm):
    image, affine = network_image(volume(noise()), spacing_mm)

    assert nib.affines.voxel_sizes(affine) == pytest.approx(spacing_mm)
    assert image.shape == grid_shape(ImageGeometry(SHAPE, AFFINE), spacing_mm)


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("spot_voxel", [(12, 10, 4), (40, 12, 15), (30, 40, 9)])
def test_world_coordinates_do_not_change(spacing_mm, spot_voxel):
    array = np.zeros(SHAPE)
    array[spot_voxel] = 1
    array = ndimage.gaussian_filter(array, (3, 3, 1))

    image, affine = network_image(volume(array), spacing_mm)

    centre_ras_mm = apply_affine(affine, ndimage.center_of_mass((image - image.min()).double().numpy()))
    assert np.abs(centre_ras_mm - apply_affine(AFFINE, spot_voxel)).max() < 0.25


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.3, 0.4), (1.5, 0.25, 0.5), (0.5, 0.5, 0.5)])
def test_finer_grid_is_interpolated_linearly_without_smoothing(spacing_mm):
    array = noise()

    image, affine = network_image(volume(array), spacing_mm)

    voxels = stored_voxels(affine, image.shape)
    inside = ((voxels >= 0) & (voxels <= np.array(SHAPE).reshape(3, 1, 1, 1) - 1)).all(axis=0)
    found = image.double().numpy()[inside]
    expected = ndimage.map_coordinates(array.astype(float), voxels[:, inside], order=1)
    # The normalisation is linear, except for clipped values.
    unclipped = np.abs(expected) < 0.5
    line = np.polynomial.Polynomial.fit(expected[unclipped], found[unclipped], 1)
    np.testing.assert_allclose(found[unclipped], line(expected[unclipped]), atol=2e-3)


@pytest.mark.parametrize("factor", [2, 3, 3.7])
def test_coarser_grid_has_no_aliasing(factor):
    # Every third voxel of a checkerboard is a checkerboard again.
    step = np.where(np.arange(66) < 33, -1.0, 1.0)[:, None, None]
    checkerboard = 1 - 2 * (np.indices((66, 66, 66)).sum(axis=0) % 2)

    image, _ = network_image(volume(step + checkerboard, np.eye(4)), (factor,) * 3)

    beside_the_step = image[2 : len(image) // 2 - 2, 2:-2, 2:-2].float()
    assert beside_the_step.std() < 0.01 * image.float().std()


@pytest.mark.parametrize("coarser", range(3))
def test_only_the_axis_that_becomes_coarser_is_smoothed(coarser):
    spacing_mm = tuple(2.0 if axis == coarser else 1.0 for axis in range(3))
    image, _ = network_image(volume(noise((48, 48, 48)), np.eye(4)), spacing_mm)

    for axis in {0, 1, 2} - {coarser}:
        lines = image.double().numpy().swapaxes(axis, -1)
        assert abs(np.corrcoef(lines[..., :-1].ravel(), lines[..., 1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("off_mm", [0, 2e-4])
def test_image_with_the_requested_spacing_is_not_resampled(off_mm):
    array = noise()

    image, affine = network_image(volume(array), tuple(np.add(SPACING_MM, off_mm)))

    turned = np.ascontiguousarray(np.flip(array.transpose(2, 0, 1), axis=1))
    assert torch.equal(image, z_scored(torch.from_numpy(turned)).half())
    np.testing.assert_array_equal(affine @ [0, 59, 0, 1], AFFINE[:, 3])


@pytest.mark.parametrize("spacing_mm", [(1.4, 0.6, 0.7), (1.1, 0.3, 0.35), (0.6, 0.8, 1.7)])
def test_label_map_has_the_label_of_the_nearest_voxel(spacing_mm):
    array = label_blocks()

    label_map, affine = network_label_map(volume(array), spacing_mm)

    voxels = stored_voxels(affine, label_map.shape)
    half_way = np.isclose(voxels % 1, 0.5, atol=1e-3).any(axis=0)  # either neighbour is the nearest
    expected = ndimage.map_coordinates(array, voxels, order=0, mode="nearest")
    assert label_map.dtype == torch.uint8
    assert label_map.unique().tolist() == [0, 1, 5]
    np.testing.assert_array_equal(label_map.numpy()[~half_way], expected[~half_way])


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_label_map_and_image_have_the_same_grid(spacing_mm):
    image, affine = network_image(volume(noise()), spacing_mm)
    label_map, of_map = network_label_map(volume(label_blocks()), spacing_mm)

    assert label_map.shape == image.shape
    np.testing.assert_allclose(of_map, affine)


def test_points_are_rounded_to_the_nearest_voxel():
    voxel = np.array([[3, 4, 5], [10, 0, 7]])

    np.testing.assert_array_equal(points_on_grid(apply_affine(AFFINE, voxel) + 0.1, AFFINE), voxel)


# Intensities


def reference(values):
    """Clip to the percentiles 0.5 and 99.5, and scale to mean 0 and deviation 1."""
    values = np.asarray(values, dtype=np.float64)
    clipped = np.clip(values, *np.percentile(values, (0.5, 99.5)))
    return (clipped - clipped.mean()) / clipped.std()


def of_scan(array):
    """Prepare an array (X, Y, Z) for the network, as float64."""
    return network_image(volume(array, np.eye(4)), (1.0, 1.0, 1.0))[0].double().numpy()


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1, 1e9])
@pytest.mark.parametrize("offset", [0, 1, -1])
def test_intensities_of_every_magnitude_are_clipped_and_z_scored(scale, offset):
    array = ((np.random.default_rng(0).normal(size=(18, 19, 20)) / 10 + offset) / 2 * scale).astype(np.float32)

    # Rounding of float32 before and of float16 after.
    np.testing.assert_allclose(of_scan(array), reference(array), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("outlier", [-1e9, 1e4, 1e9])
def test_few_outliers_do_not_change_the_others(outlier):
    array = np.random.default_rng(0).normal(50, 7, (30, 30, 30))
    spoilt = array.copy()
    spoilt[3, 4, 5:25] = outlier
    others = (np.abs(array - 50) < 14) & (spoilt == array)

    np.testing.assert_allclose(of_scan(spoilt)[others], of_scan(array)[others], atol=0.02)
    assert np.abs(of_scan(spoilt)).max() < 4


@pytest.mark.parametrize("shape", [(1100, 1000, 2), (2, 1100, 1000), (700, 3, 1000), (1000, 500, 10)])
def test_percentiles_of_large_images_are_of_all_planes(shape):
    axis = int(np.argmin(shape))  # every plane along this axis has its own intensities
    array = np.random.default_rng(0).uniform(0, 1, shape).swapaxes(0, axis)
    array = (array + 10 * np.arange(shape[axis]).reshape(-1, 1, 1)).swapaxes(0, axis).astype(np.float32)

    np.testing.assert_allclose(z_scored(torch.from_numpy(array)).numpy(), reference(array), atol=0.01)


def test_contrast_is_used_if_the_percentiles_are_equal():
    array = np.full((20, 20, 20), 7.0)
    array[3, 4, 5] = 8

    scored = of_scan(array)

    assert scored[3, 4, 5] == pytest.approx(np.sqrt(8000 - 1), rel=1e-3)


@pytest.mark.parametrize("value", [0, 50, -1024.3, 1e9])
def test_image_without_contrast_is_0_everywhere(value):
    array = np.full((8, 9, 10), value, np.float32)
    array[::2] *= 1 + np.finfo(np.float32).eps

    assert (of_scan(array) == 0).all()


# Size


TOO_LARGE = {
    "thick slices": ((512, 512, 512), (0.5, 0.5, 100.0), (0.5, 0.5, 0.5)),
    "header in other units": ((256, 256, 100), (1000.0, 1000.0, 1000.0), (1.0, 1.0, 1.0)),
    "spacing beyond all numbers": ((256, 256, 100), (1e30, 1e30, 1e30), (1.0, 1.0, 1.0)),
    "fine grid": ((512, 512, 40), (0.5, 0.5, 6.0), (0.1, 0.1, 0.1)),
}


@pytest.mark.parametrize(("shape", "own_mm", "network_mm"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_scan_that_becomes_too_large_is_refused(shape, own_mm, network_mm):
    geometry = ImageGeometry(shape, np.diag([*own_mm, 1.0]))

    with pytest.raises(VolumeError, match="on the network's grid of .* has the size .* GB.*expected at most 4 GB"):
        check_grid_size(geometry, network_mm, 1)


@pytest.mark.parametrize("own_mm", [(1e-3, 1e-3, 1e-3), (1.0, 1.0, 0.05)])
def test_scan_smaller_than_a_voxel_of_the_networks_grid_is_refused(own_mm):
    with pytest.raises(VolumeError, match="is smaller than a voxel; correct the spacing in its header"):
        check_grid_size(ImageGeometry((60, 50, 10), np.diag([*own_mm, 1.0])), (1.0, 1.0, 1.0), 1)


def test_limit_on_the_networks_grid_is_the_one_of_volumes(monkeypatch):
    geometry = ImageGeometry((100, 100, 10), np.diag([1.0, 1.0, 5.0, 1.0]))

    monkeypatch.setenv(MAX_VOLUME_VARIABLE, "0.002")
    check_grid_size(geometry, (1.0, 1.0, 1.0), 1)
    with pytest.raises(VolumeError, match="100 x 100 x 100, 0.004 GB as 32-bit numbers; expected at most 0.002 GB"):
        check_grid_size(geometry, (1.0, 1.0, 0.5), 1)
