import numpy as np
import torch

from lib.annotations.geometry import ImageGeometry
from lib.data.grid import network_grid, onto_grid, points_on_grid, to_scalar_image

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
