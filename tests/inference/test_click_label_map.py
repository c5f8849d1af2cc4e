"""Click masks, which are computed in a part of the image, are those of the whole image."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.clickmask.click_mask import segment_from_clicks
from lib.clickmask.click_network import ClickNetwork
from lib.clickmask.context_box import context_box
from lib.clickmask.label_map import merge_masks
from lib.clickmask.learnt import Learnt
from lib.clickmask.shape_atlas import Shape, ShapeAtlas
from lib.geometry.boxes import Box
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.inference.click_label_map import click_label_map, click_mask, network_prior_weight
from lib.networks.checkpoint import TrainedModel
from lib.networks.spec import NetworkSpec
from tests.clickmask.bodies import lopsided

SHAPE, SPACING_MM = (60, 50, 40), (0.8, 0.8, 1.5)
INDEX = {"lesion": 1, "cyst": 2, "vessel": 3}


def ball(centre, radius):
    return sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(map(slice, SHAPE))], centre, strict=True)) < radius**2


STRUCTURES = {"lesion": ball((20, 20, 15), 9), "cyst": ball((32, 20, 16), 8), "vessel": ball((45, 40, 30), 5)}


@pytest.fixture(scope="module")
def volume():
    rng = np.random.default_rng(0)
    image = sum(INDEX[label] * 100 * mask for label, mask in STRUCTURES.items()) + rng.normal(0, 60, SHAPE)
    return Volume(np.asfortranarray(image.astype(np.int16)), ImageGeometry(SHAPE, np.diag([*SPACING_MM, 1.0])))


def points(label, **clicks):
    return ExtremePoints.from_clicks(label, simulated_extreme_points(STRUCTURES[label]), **clicks)


def probability_of(label):
    """Make the probability (X, Y, Z) of a network that is not perfect."""
    rng = np.random.default_rng(INDEX[label])
    return np.clip(0.7 * STRUCTURES[label] + rng.uniform(0, 0.3, SHAPE), 0, 1).astype(np.float32)


def of_whole_image(volume, structures, prior_weight):
    spacing_mm, image = volume.geometry.spacing_mm, volume.array.astype(np.float32)
    masks = {
        INDEX[p.label]: segment_from_clicks(
            image,
            p,
            spacing_mm,
            foreground_probability=probability_of(p.label) if prior_weight else None,
            prior_weight=prior_weight,
        )
        for p in structures
    }
    boxed = {index: (Box((0, 0, 0), SHAPE), mask) for index, mask in masks.items()}
    return merge_masks(boxed, {INDEX[p.label]: p.foreground_voxel for p in structures}, spacing_mm, SHAPE)


@pytest.mark.parametrize("prior_weight", [0.0, 0.7])
@pytest.mark.parametrize("labels", [["vessel"], ["lesion", "cyst"], ["cyst", "vessel", "lesion"]])
def test_label_map_is_that_of_the_whole_image(volume, labels, prior_weight):
    structures = [points(label) for label in labels]

    found = click_label_map(
        volume,
        structures,
        INDEX,
        lambda label, box: probability_of(label)[box.slices] if prior_weight else None,
        prior_weight,
    )

    np.testing.assert_array_equal(found, of_whole_image(volume, structures, prior_weight))
    assert set(np.unique(found)) == {0, *(INDEX[label] for label in labels)}
    assert found.dtype == np.uint8 and found.flags.f_contiguous


def test_background_clicks_near_the_structure_are_used_and_distant_ones_are_ignored(volume):
    beside = np.array([[32, 20, 16], [59, 49, 39]])
    structures = [points("lesion", background_voxel=beside)]

    np.testing.assert_array_equal(click_label_map(volume, structures, INDEX), of_whole_image(volume, structures, 0.0))


def test_only_the_surroundings_of_the_clicks_are_read(volume):
    clicks = points("vessel")
    box = context_box(clicks, SHAPE)
    elsewhere = np.ones(SHAPE, bool)
    elsewhere[box.slices] = False
    unread = Volume(np.where(elsewhere, np.nan, volume.array), volume.geometry)

    found_box, mask = click_mask(unread, clicks)

    assert found_box == box
    np.testing.assert_array_equal(mask, click_mask(volume, clicks)[1])


def test_network_with_weight_0_is_not_run(volume):
    def probability(label, box):
        raise AssertionError("the network was run")

    found = click_label_map(volume, [points("lesion")], INDEX, probability, prior_weight=0.0)

    np.testing.assert_array_equal(found, click_label_map(volume, [points("lesion")], INDEX))


def test_network_gets_the_label_and_the_box_of_the_clicks(volume):
    calls = []

    def probability(label, box):
        calls.append((label, box))
        return probability_of(label)[box.slices]

    structures = [points("lesion"), points("vessel")]
    click_label_map(volume, structures, INDEX, probability, prior_weight=0.5)

    assert calls == [(p.label, context_box(p, SHAPE)) for p in structures]


def test_without_structures_the_label_map_is_empty(volume):
    assert not click_label_map(volume, [], INDEX).any()


@pytest.mark.parametrize(("score", "prior_weight"), [(None, 0), (0.0, 0), (0.5, 0), (0.75, 0.5), (1.0, 1)])
def test_prior_weight_is_linear_above_a_score_of_a_half(score, prior_weight):
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=2)

    assert network_prior_weight(TrainedModel(spec, spec.build(), 1, score)) == prior_weight


# Atlases and click networks


def learnt(network=None):
    """Make the atlas of a label whose structures are not balls."""
    return Learnt(ShapeAtlas.mean_of([Shape.of_mask(lopsided(), np.eye(4))], weight=20.0), network)


def drawing_network():
    torch.manual_seed(0)
    network = ClickNetwork().eval()
    torch.nn.init.normal_(network.out.weight, 0, 3)
    return network


@pytest.mark.parametrize("network", [None, drawing_network()], ids=["atlas", "network"])
def test_each_label_uses_its_own_atlas_and_network(volume, network):
    structures = [points("lesion"), points("vessel")]
    plain = click_label_map(volume, structures, INDEX)
    known = learnt(network)
    label_map = click_label_map(volume, structures, INDEX, learnt={"vessel": known})

    np.testing.assert_array_equal(label_map == INDEX["lesion"], plain == INDEX["lesion"])
    p, g = points("vessel"), volume.geometry
    expected = segment_from_clicks(
        volume.array.astype(np.float32), p, g.spacing_mm, atlas=known.atlas, network=network, affine_ras=g.affine_ras
    )
    np.testing.assert_array_equal(label_map == INDEX["vessel"], expected)
    assert (label_map != plain).any()


def test_networks_run_in_few_threads(volume, monkeypatch):
    threads = set()

    def correction(self, inputs):
        threads.add(threading.current_thread())
        return np.zeros(inputs.shape[1:], np.float32)

    monkeypatch.setattr(ClickNetwork, "correction", correction)
    known = learnt(ClickNetwork())
    with ThreadPoolExecutor(8) as requests:
        list(requests.map(lambda _: click_mask(volume, points("vessel"), learnt=known), range(24)))

    assert len(threads) <= torch.get_num_threads()
