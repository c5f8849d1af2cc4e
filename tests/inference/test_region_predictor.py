"""Predictions of regions are cached."""

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from lib.geometry.boxes import Box
from lib.geometry.volume import load_volume
from lib.inference.prediction import BrokenModelError, predict_probability
from lib.inference.region_predictor import RegionPredictor
from lib.networks.checkpoint import TrainedModel
from lib.networks.spec import NetworkSpec

SHAPE = (40, 30, 20)
BOX = Box((5, 6, 3), (25, 20, 14))


class Counting(nn.Module):
    """Gives bright voxels a high probability of the first label, and counts its windows."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor, self.calls = factor, 0

    def forward(self, image):
        self.calls += 1
        return torch.cat([0 * image, self.factor * image, -image], dim=1)


def model(factor=1.0):
    spec = NetworkSpec.plan(("lesion", "cyst"), (1.0, 1.0, 1.5), (16, 16, 16), levels=2, base_channels=2)
    return TrainedModel(spec, Counting(factor), 1)


@pytest.fixture
def scan(images, tmp_path):
    return opened(images, tmp_path / "scan.nii.gz", seed=0)


def opened(images, path, seed):
    values = np.random.default_rng(seed).normal(0, 500, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, 1.0, 2.0, 1.0])), path)
    return images.open(path)


def test_probabilities_are_those_of_the_box_in_the_whole_scan(images, scan):
    found = RegionPredictor(images, "cpu").probability(model(), scan, BOX)

    expected = predict_probability(model(), load_volume(scan.path))[(slice(None), *BOX.slices)]
    assert (found.shape, found.dtype) == ((2, *BOX.shape), np.float32)
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("box", [BOX, Box((8, 6, 5), (20, 15, 14)), Box((6, 7, 4), (7, 8, 5))])
def test_second_prediction_in_the_same_region_does_not_run_the_network(images, scan, box):
    predictor, network = RegionPredictor(images, "cpu"), model()
    whole = predictor.probability(network, scan, BOX)
    calls = network.network.calls

    again = predictor.probability(network, scan, box)

    assert network.network.calls == calls > 0
    inside = box.shifted(-np.array(BOX.start)).slices
    np.testing.assert_allclose(again, whole[(slice(None), *inside)], atol=1e-6)


def test_another_region_image_or_network_has_its_own_prediction(images, scan, tmp_path):
    predictor, first, second = RegionPredictor(images, "cpu"), model(), model(factor=3.0)
    other = opened(images, tmp_path / "other.nii.gz", seed=1)
    before = predictor.probability(first, scan, BOX)

    assert predictor.probability(first, scan, Box((5, 6, 3), (29, 20, 14))).shape[1] == 24
    assert np.abs(predictor.probability(first, other, BOX) - before).max() > 0.1
    assert np.abs(predictor.probability(second, scan, BOX) - before).max() > 0.1


def test_the_last_predictions_are_cached_up_to_the_limit(images, scan):
    network = model()
    far = Box((28, 6, 3), (39, 20, 14))
    predictor = RegionPredictor(images, "cpu", limit_bytes=20_000)  # less than two predictions

    for box in (BOX, far, far, BOX):
        predictor.probability(network, scan, box)
        assert sum(region.probability.nbytes for region in predictor._regions) <= 20_000

    calls = network.network.calls
    predictor.probability(network, scan, BOX)
    assert network.network.calls == calls


def test_prediction_of_an_image_that_is_not_cached_is_not_cached(images, scan):
    predictor, network = RegionPredictor(images, "cpu"), model()
    upload = images.open(scan.path, keep=False)

    predictor.probability(network, upload, BOX)

    assert not predictor._regions


def test_a_broken_network_is_refused_each_time(images, scan):
    predictor, broken = RegionPredictor(images, "cpu"), model(factor=torch.nan)

    for _ in range(2):
        with pytest.raises(BrokenModelError):
            predictor.probability(broken, scan, BOX)
