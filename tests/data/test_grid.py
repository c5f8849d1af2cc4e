import numpy as np
import pytest
import torch

from lib.data.grid import ZScore, check_grid_size, grid_shape, network_grid, onto_grid, points_on_grid, to_scalar_image
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError
from lib.geometry.volume_size import MAX_VOLUME_VARIABLE

AFFINE = np.array([[0, 0, 1.5, 10], [-0.5, 0, 0, 20], [0, 0.5, 0, -5], [0, 0, 0, 1.0]])


def asymmetric_object(shape=(60, 50, 20)):
    array = np.zeros(shape, dtype=np.float32)
    array[10:25, 8:40, 3:9] = 1
    array[25:45, 30:40, 3:12] = 1
    return array


def test_to_the_network_and_back_is_where_it_was():
    array, geometry = asymmetric_object(), ImageGeometry((60, 50, 20), AFFINE)

    on_network = network_grid((1.4, 0.6, 0.7))(to_scalar_image(array, geometry))
    assert "".join(on_network.orientation) == "RAS"
    halfway = (on_network.data.min() + on_network.data.max()) / 2
    probability = (on_network.data > halfway).float()
    back = onto_grid(probability, on_network.affine, geometry)[0] > 0.5

    overlap = 2 * (back & (array > 0)).sum() / (back.sum() + (array > 0).sum())
    assert back.shape == array.shape
    assert overlap > 0.95


def test_same_grid_is_exact():
    geometry = ImageGeometry((6, 5, 4), AFFINE)
    probability = torch.rand(2, 6, 5, 4)

    np.testing.assert_allclose(onto_grid(probability, AFFINE, geometry), probability.numpy(), atol=1e-5)


def test_millimetres_to_the_nearest_voxel():
    voxel = np.array([[3, 4, 5], [10, 0, 7]])
    mm = voxel @ AFFINE[:3, :3].T + AFFINE[:3, 3]

    np.testing.assert_array_equal(points_on_grid(mm + 0.1, AFFINE), voxel)


def test_intensities_have_mean_0_and_deviation_1_and_no_contrast_is_0():
    geometry = ImageGeometry((8, 9, 10), np.eye(4))
    image = np.random.default_rng(0).normal(50, 7, (8, 9, 10)).astype(np.float32)

    def normalised(array):
        return network_grid((1.0, 1.0, 1.0))(to_scalar_image(array, geometry)).data.numpy()

    np.testing.assert_allclose([normalised(image).mean(), normalised(image).std()], [0, 1], atol=1e-3)
    assert (normalised(np.full_like(image, 50)) == 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e9, 1e20, 3e38])
@pytest.mark.parametrize("offset", [0, 1, -1])
def test_intensities_of_every_magnitude_become_finite(scale, offset):
    image = np.random.default_rng(0).uniform(-1, 1, (8, 9, 10)) + offset
    scan = to_scalar_image((image / 2 * scale).astype(np.float32), ImageGeometry((8, 9, 10), np.eye(4)))

    normalised = ZScore()(scan).data.double().numpy()

    np.testing.assert_allclose([normalised.mean(), normalised.std()], [0, 1], atol=1e-3)


@pytest.mark.parametrize("fill", [-3.4e38, 3.4e38])
def test_distance_from_the_mean_does_not_overflow(fill):
    image = np.full((8, 9, 10), fill, np.float32)
    image[3, 4, 5] = -fill

    normalised = ZScore()(to_scalar_image(image, ImageGeometry((8, 9, 10), np.eye(4)))).data.double().numpy()

    np.testing.assert_allclose([normalised.mean(), normalised.std()], [0, 1], atol=1e-3)


@pytest.mark.parametrize("value", [0, 50, -1024.3, 1e9, 3e38])
def test_image_without_contrast_is_0_everywhere(value):
    image = np.full((8, 9, 10), value, np.float32)
    image[::2] *= 1 + np.finfo(np.float32).eps

    assert (ZScore()(to_scalar_image(image, ImageGeometry((8, 9, 10), np.eye(4)))).data == 0).all()


@pytest.mark.parametrize("spacing_mm", [(1.4, 0.6, 0.7), (0.5, 0.5, 3.0), (20.0, 20.0, 20.0)])
def test_size_on_the_networks_grid_is_known_before_it_is_made(spacing_mm):
    geometry = ImageGeometry((60, 50, 20), AFFINE)
    made = network_grid(spacing_mm)(to_scalar_image(asymmetric_object(), geometry))

    assert grid_shape(geometry, spacing_mm) == made.spatial_shape


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
