"""The network applied to a whole scan: its answer lies where the structure lies, on the scan's own voxels."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, VolumeError
from lib.infers.prediction import predict_probability
from lib.networks.checkpoint import NetworkSpec, TrainedModel
from lib.refinement.automatic_mask import label_map

TURN = Rotation.from_euler("xyz", [8, -12, 15], degrees=True).as_matrix()
# Voxel axes i, j, k point to inferior, right, posterior; 0.8 x 1.0 x 2.5 mm; turned out of the body's axes as well.
AXES = np.array([[0, 1.0, 0], [0, 0, -1.0], [-1.0, 0, 0]]) * [0.8, 1.0, 2.5]
SHAPE = (50, 40, 20)
CENTRE_RAS_MM = np.array([12.0, -8.0, 30.0])


class Threshold(nn.Module):
    """Calls bright what is bright: the only network whose right answer is known without training."""

    def forward(self, image):
        return torch.cat([-20 * (image - 1), 20 * (image - 1)], dim=1)


class Constant(nn.Module):
    """The same logits everywhere."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, image):
        return self.logits.view(1, -1, 1, 1, 1) + 0 * image


def model(network, spacing_mm=(1.0, 1.0, 1.0), labels=("lesion",)):
    return TrainedModel(NetworkSpec.plan(labels, spacing_mm, (32, 32, 32), 2, 2), network, 1)


def geometry(matrix, shape=SHAPE):
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = CENTRE_RAS_MM - matrix @ (np.array(shape) / 2)
    return ImageGeometry(shape, affine)


def places_ras_mm(grid):
    voxels = np.stack(np.indices(grid.shape), axis=-1)
    return voxels @ grid.affine_ras[:3, :3].T + grid.affine_ras[:3, 3]


def scan_with_lesion(grid):
    """A bright ellipsoid, off the scan's centre and of three different axes, so that no flip or swap can hide."""
    offset = (places_ras_mm(grid) - CENTRE_RAS_MM - [4, -3, 5]) / [7, 9, 11]
    return Volume((1000.0 * ((offset**2).sum(axis=-1) < 1)).astype(np.float32), grid)


def test_mask_is_in_the_voxel_order_of_a_scan_with_turned_axes():
    volume = scan_with_lesion(geometry(AXES))

    # On a grid of the scan's own spacings nothing is interpolated, so the mask is the lesion, voxel by voxel.
    mask = label_map(predict_probability(model(Threshold(), spacing_mm=(1.0, 2.5, 0.8)), volume))

    np.testing.assert_array_equal(mask, volume.array > 0)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0)])
def test_mask_lies_at_the_millimetres_of_the_lesion_in_an_oblique_scan(spacing_mm):
    volume = scan_with_lesion(geometry(TURN @ AXES))

    mask = label_map(predict_probability(model(Threshold(), spacing_mm), volume)) > 0

    places, lesion = places_ras_mm(volume.geometry), volume.array > 0
    # Symmetric errors of the border cancel out in the centre; a shift by half a voxel does not.
    np.testing.assert_allclose(places[mask].mean(axis=0), places[lesion].mean(axis=0), atol=0.25)
    np.testing.assert_allclose(places[mask].std(axis=0), places[lesion].std(axis=0), rtol=0.1)
    assert 2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()) > 0.85


@pytest.mark.parametrize("shift, scale", [(-1024, 1), (500, 0.01)])
def test_units_of_intensity_do_not_matter(shift, scale):
    # CT comes in Hounsfield units, MR in whatever the scanner likes.
    volume = scan_with_lesion(geometry(AXES))
    other = Volume((volume.array * scale + shift).astype(np.float32), volume.geometry)

    masks = [label_map(predict_probability(model(Threshold()), scan)) for scan in (volume, other)]

    np.testing.assert_array_equal(*masks)


def test_probabilities_are_those_of_the_foreground_channels():
    probability = predict_probability(
        model(Constant(0.0, 1.0, 2.0), labels=("lesion", "cyst")), scan_with_lesion(geometry(AXES))
    )

    expected = np.exp([1.0, 2.0]) / np.exp([0.0, 1.0, 2.0]).sum()
    inside = probability[:, 5:-5, 5:-5, 3:-3]
    assert probability.shape == (2, *SHAPE)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(inside, np.broadcast_to(expected[:, None, None, None], inside.shape), rtol=1e-5)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 3.0, 3.0), (0.7, 0.7, 4.0)])
def test_structure_is_followed_to_the_last_voxel_of_the_scan(spacing_mm):
    volume = scan_with_lesion(geometry(TURN @ AXES))

    mask = label_map(predict_probability(model(Constant(0.0, 5.0), spacing_mm), volume))

    assert mask.min() == 1


def test_scan_smaller_than_the_window_is_segmented_whole():
    volume = scan_with_lesion(geometry(np.eye(3) * 2.0, shape=(14, 14, 14)))

    mask = label_map(predict_probability(model(Threshold(), spacing_mm=(2.0, 2.0, 2.0)), volume))

    np.testing.assert_array_equal(mask, volume.array > 0)


def test_label_map_takes_the_most_probable_class_background_among_them():
    probability = np.array([[0.2, 0.6, 0.3, 0.34], [0.2, 0.3, 0.6, 0.36]], np.float32).reshape(2, 4, 1, 1)

    assert label_map(probability).ravel().tolist() == [0, 1, 2, 2]
    assert label_map(probability).dtype == np.uint8


class Unreached(nn.Module):
    def forward(self, image):
        raise AssertionError("the network was asked about a scan that is too large for its grid")


@pytest.mark.parametrize("own_mm", [(1000.0, 1000.0, 1000.0), (1.0, 1.0, 1e6), (1e12, 1e12, 1e12)])
def test_scan_too_large_for_the_networks_grid_is_refused_before_anything_is_computed(own_mm):
    volume = Volume(np.zeros(SHAPE, np.float32), geometry(np.diag(own_mm)))

    with pytest.raises(VolumeError, match="on the network's grid of 1 x 1 x 1 mm has the size"):
        predict_probability(model(Unreached()), volume)
