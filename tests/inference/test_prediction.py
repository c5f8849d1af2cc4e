"""Predictions of a network: their position in the scan, and predictions of a part of a scan."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn
from torch.nn import functional

from lib.geometry.boxes import Box
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, VolumeError
from lib.inference import prediction
from lib.inference.automatic_mask import label_map
from lib.inference.prediction import (
    BrokenModelError,
    predict_label_map,
    predict_on_grid,
    predict_probability,
    predict_region,
)
from lib.inference.windows import WindowGrid
from lib.networks.checkpoint import TrainedModel
from lib.networks.spec import NetworkSpec

TURN = Rotation.from_euler("xyz", [8, -12, 15], degrees=True).as_matrix()
# Voxel axes i, j, k point to inferior, right, posterior; 0.8 x 1.0 x 2.5 mm.
AXES = np.array([[0, 1.0, 0], [0, 0, -1.0], [-1.0, 0, 0]]) * [0.8, 1.0, 2.5]
SHAPE = (50, 40, 20)
CENTRE_RAS_MM = np.array([12.0, -8.0, 30.0])


class Threshold(nn.Module):
    """Labels bright voxels: its output is known without training."""

    def forward(self, image):
        return torch.cat([-20 * (image - 2), 20 * (image - 2)], dim=1)


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
    """Make a bright ellipsoid with three different axes, off the centre, which reveals flips and swaps."""
    offset = (places_ras_mm(grid) - CENTRE_RAS_MM - [4, -3, 5]) / [7, 9, 11]
    return Volume((1000.0 * ((offset**2).sum(axis=-1) < 1)).astype(np.float32), grid)


def test_mask_is_in_the_voxel_order_of_a_scan_with_permuted_axes():
    volume = scan_with_lesion(geometry(AXES))

    # On a grid with the spacings of the scan nothing is interpolated.
    mask = label_map(predict_probability(model(Threshold(), spacing_mm=(1.0, 2.5, 0.8)), volume))

    np.testing.assert_array_equal(mask, volume.array > 0)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0)])
def test_mask_lies_at_the_millimetres_of_the_lesion_in_an_oblique_scan(spacing_mm):
    volume = scan_with_lesion(geometry(TURN @ AXES))

    mask = label_map(predict_probability(model(Threshold(), spacing_mm), volume)) > 0

    places, lesion = places_ras_mm(volume.geometry), volume.array > 0
    # Symmetric errors of the boundary do not change the centre; a shift by half a voxel does.
    np.testing.assert_allclose(places[mask].mean(axis=0), places[lesion].mean(axis=0), atol=0.25)
    np.testing.assert_allclose(places[mask].std(axis=0), places[lesion].std(axis=0), rtol=0.1)
    assert 2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()) > 0.85


@pytest.mark.parametrize("shift, scale", [(-1024, 1), (500, 0.01)])
def test_units_of_intensity_do_not_matter(shift, scale):
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
def test_structure_extends_to_the_last_voxel_of_the_scan(spacing_mm):
    volume = scan_with_lesion(geometry(TURN @ AXES))

    mask = label_map(predict_probability(model(Constant(0.0, 5.0), spacing_mm), volume))

    assert mask.min() == 1


def test_scan_smaller_than_the_window_is_segmented_whole():
    volume = scan_with_lesion(geometry(np.eye(3) * 2.0, shape=(14, 14, 14)))

    mask = label_map(predict_probability(model(Threshold(), spacing_mm=(2.0, 2.0, 2.0)), volume))

    np.testing.assert_array_equal(mask, volume.array > 0)


def test_label_map_has_the_most_probable_class_including_background():
    probability = np.array([[0.2, 0.6, 0.3, 0.34], [0.2, 0.3, 0.6, 0.36]], np.float32).reshape(2, 4, 1, 1)

    assert label_map(probability).ravel().tolist() == [0, 1, 2, 2]
    assert label_map(probability).dtype == np.uint8


class Unreached(nn.Module):
    def forward(self, image):
        raise AssertionError("the network was run on a scan that is too large for its grid")


@pytest.mark.parametrize("own_mm", [(1000.0, 1000.0, 1000.0), (1.0, 1.0, 1e6), (1e12, 1e12, 1e12)])
def test_scan_too_large_for_the_networks_grid_is_refused_before_anything_is_computed(own_mm):
    volume = Volume(np.zeros(SHAPE, np.float32), geometry(np.diag(own_mm)))

    with pytest.raises(VolumeError, match="on the network's grid of 1 x 1 x 1 mm has the size"):
        predict_probability(model(Unreached()), volume)


# Parts of a scan

WHOLE = Box((0, 0, 0), (50, 44, 21))
BOXES = [WHOLE, Box((3, 10, 4), (20, 40, 12)), Box((44, 0, 8), (50, 5, 9)), Box((10, 12, 3), (40, 20, 21))]


@pytest.fixture
def in_32_bits(monkeypatch):
    monkeypatch.setattr(prediction, "mixed_precision", lambda *_: None)


def untrained(labels=("lesion", "cyst"), roi_size=(16, 16, 16)):
    torch.manual_seed(0)
    spec = NetworkSpec.plan(labels, (1.0, 1.0, 1.0), roi_size, levels=2, base_channels=4)
    return TrainedModel(spec, spec.build().eval(), 1)


def noise(shape=WHOLE.shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).half()


def by_all_windows(model, image, box):
    """Compute the weighted mean of the logits of all windows, on an image padded with zeros."""
    grid, around = WindowGrid.over(box, image.shape, model.spec.roi_size), 20
    padded = functional.pad(image.float(), (around,) * 6)
    total, weights = torch.zeros(1 + len(model.spec.labels), *padded.shape), torch.zeros(padded.shape)
    weight = torch.einsum("i,j,k->ijk", *grid.weights)
    for corner in product(*grid.starts):
        window = tuple(slice(around + first, around + first + n) for first, n in zip(corner, grid.size, strict=True))
        with torch.inference_mode():
            total[(slice(None), *window)] += weight * model.network(padded[window][None, None])[0]
        weights[window] += weight
    inside = box.shifted(np.full(3, around)).slices
    return torch.softmax(total[(slice(None), *inside)] / weights[inside], dim=0)[1:]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.usefixtures("in_32_bits")
def test_region_is_the_weighted_mean_of_windows(box):
    model, image = untrained(), noise()

    found = predict_region(model, image, box)

    assert (found.dtype, found.shape) == (torch.float32, (2, *box.shape))
    torch.testing.assert_close(found, by_all_windows(model, image, box), atol=1e-5, rtol=0)


class Neighbours(nn.Module):
    """Averages over neighbouring voxels."""

    def forward(self, image):
        blurred = functional.avg_pool3d(image, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([-blurred, blurred], dim=1)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.usefixtures("in_32_bits")
def test_region_of_a_network_that_sees_the_margin_is_that_of_the_whole(box):
    model, image = TrainedModel(untrained(("lesion",)).spec, Neighbours(), 1), noise()

    whole = predict_region(model, image, WHOLE)

    inside = whole[(slice(None), *box.slices)]
    # Border voxels of a window, which miss neighbours, have a weight of a hundredth.
    torch.testing.assert_close(predict_region(model, image, box), inside, atol=0.01, rtol=0)


def scene(seed, size=40):
    """Make bright and dark balls in noise; the bright ones are the structure."""
    rng = np.random.default_rng(seed)
    image, truth = rng.normal(0, 0.7, (size,) * 3), np.zeros((size,) * 3, bool)
    for sign in (1, -1, 1):
        centre, radius = rng.uniform(8, size - 8, 3), rng.uniform(4, 7)
        ball = sum((axis - c) ** 2 for axis, c in zip(np.ogrid[(slice(size),) * 3], centre, strict=True)) < radius**2
        image[ball], truth[ball] = image[ball] + 3 * sign, sign > 0
    image = (image - image.mean()) / image.std()
    return torch.from_numpy(image).half(), torch.from_numpy(truth)


@pytest.fixture(scope="module")
def trained():
    """Network that was trained for some seconds."""
    torch.manual_seed(0)
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=4)
    network, scenes = spec.build().train(), [scene(seed) for seed in range(6)]
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for step in range(150):
        image, truth = scenes[step % 6]
        places = truth.nonzero() if step % 3 else torch.randint(0, 40, (100, 3))
        corner = (places[torch.randint(len(places), (1,))][0] - 8).clamp(0, 24)
        window = tuple(slice(int(first), int(first) + 16) for first in corner)
        loss = functional.cross_entropy(network(image[window].float()[None, None]), truth[window].long()[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return TrainedModel(spec, network.eval(), 1)


def test_region_of_a_trained_network_is_close_to_that_of_the_whole(trained):
    # Instance normalisation depends on the window, so that voxels at the boundary of a structure may differ.
    image, truth = scene(10)
    voxels = np.argwhere(truth.numpy())
    box = Box.around(voxels).relaxed(3, tuple(image.shape))

    whole = predict_region(trained, image, Box((0, 0, 0), tuple(image.shape)))[0][box.slices]
    part = predict_region(trained, image, box)[0]

    dice = 2 * ((whole > 0.5) & truth[box.slices]).sum() / ((whole > 0.5).sum() + truth[box.slices].sum())
    assert dice > 0.9, "the network is trained"
    assert (part - whole).abs().mean() < 0.02
    assert ((part > 0.5) != (whole > 0.5)).float().mean() < 0.01


def test_only_voxels_of_windows_are_read():
    model, image, box = untrained(), noise((80, 80, 80)), Box((30, 32, 34), (40, 40, 44))
    seen = WindowGrid.over(box, image.shape, model.spec.roi_size).box
    elsewhere = torch.ones(image.shape, dtype=torch.bool)
    elsewhere[seen.slices] = False
    image[elsewhere] = torch.nan

    assert torch.isfinite(predict_region(model, image, box)).all()
    assert np.prod(seen.shape) < 20**3


@pytest.mark.parametrize("slab_bytes", [1, 3000])
def test_result_does_not_depend_on_the_size_of_slabs(monkeypatch, slab_bytes):
    volume = scan_with_lesion(geometry(TURN @ AXES))
    model = untrained(roi_size=(16, 24, 16))
    expected = predict_label_map(model, volume), predict_probability(model, volume)

    monkeypatch.setattr(prediction, "_SLAB_BYTES", slab_bytes)

    np.testing.assert_array_equal(predict_label_map(model, volume), expected[0])
    np.testing.assert_allclose(predict_probability(model, volume), expected[1], atol=1e-6)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.8, 1.1, 3.0)])
def test_a_box_of_the_scan_has_the_probabilities_of_the_whole(spacing_mm):
    volume, box = scan_with_lesion(geometry(TURN @ AXES)), Box((20, 3, 5), (48, 30, 16))
    local = TrainedModel(NetworkSpec.plan(("lesion",), spacing_mm, (32, 32, 32), 2, 2), Threshold(), 1)

    whole = predict_probability(local, volume)

    np.testing.assert_allclose(predict_probability(local, volume, box=box), whole[0][None][:, *box.slices], atol=1e-5)


@pytest.mark.parametrize("matrix", [AXES, TURN @ AXES, np.diag([-1.0, 1.0, 2.0])])
def test_label_map_is_that_of_the_probabilities(matrix):
    volume, model = scan_with_lesion(geometry(matrix)), untrained()

    found = predict_label_map(model, volume)

    expected = label_map(predict_probability(model, volume))
    # They are stored in 16 bits, where two classes may be equally likely that are not in 32.
    assert (found != expected).mean() < 3e-3


class NoMemory(nn.Module):
    """Runs out of memory at its first call."""

    calls = 0

    def forward(self, image):
        NoMemory.calls += 1
        if NoMemory.calls == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.cat([-image, image], dim=1)


def test_cpu_predicts_if_the_gpu_is_out_of_memory(caplog):
    NoMemory.calls = 0
    model, image = TrainedModel(untrained(("lesion",)).spec, NoMemory(), 1), noise((16, 16, 16))

    found = predict_region(model, image, Box((0, 0, 0), (16, 16, 16)))

    torch.testing.assert_close(found[0], torch.sigmoid(2 * image.float()), atol=0.02, rtol=0)
    assert caplog.text.count("The GPU is out of memory. The CPU predicts instead") == 1


def test_probabilities_that_are_not_finite_are_refused():
    volume, model = scan_with_lesion(geometry(AXES)), untrained()
    broken = TrainedModel(model.spec, Constant(0.0, torch.nan, 0.0), 7)

    for predict in (predict_probability, predict_label_map):
        with pytest.raises(BrokenModelError, match="Version 7 of the model is broken; roll back, or train again."):
            predict(broken, volume)
    with pytest.raises(BrokenModelError):
        predict_on_grid(broken, noise())
