"""Automatic masks end at edges of the image, and structures are not lost."""

import logging

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from lib.data.grid import network_image
from lib.data.prepared_scans import PreparedVolume
from lib.geometry.boxes import Box
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.inference import automatic_mask
from lib.inference.automatic_mask import crf_label_map, label_map
from lib.inference.dense_crf import mean_field
from lib.inference.prediction import BrokenModelError
from lib.metrics import dice
from lib.networks.checkpoint import TrainedModel
from lib.networks.spec import NetworkSpec

SHAPE, SPACING_MM = (40, 36, 20), (1.0, 1.0, 2.0)


def ball(centre, radius_mm):
    grid_mm = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING_MM
    return np.linalg.norm(grid_mm - np.multiply(centre, SPACING_MM), axis=-1) <= radius_mm


def image_of(*masks, noise=0.15):
    """Make an image (X, Y, Z) with levels 1, 2, ... in the masks on 0."""
    image = sum(level * mask for level, mask in enumerate(masks, start=1))
    return image + np.random.default_rng(0).normal(0, noise, SHAPE)


def probability_of(mask, inside=0.8, outside=0.1):
    return np.where(mask, inside, outside)


@pytest.mark.parametrize("scale", [1.0, 700.0])
def test_a_mask_that_is_too_large_ends_at_the_edge_for_any_scale_of_intensities(scale):
    truth = ball((20, 18, 10), 7)
    probability = probability_of(ball((20, 18, 10), 10), inside=0.6)[None]

    refined = crf_label_map(scale * image_of(truth), probability, SPACING_MM)

    assert dice(label_map(probability) == 1, truth) < 0.6
    assert dice(refined == 1, truth) > 0.95


def surface(mask):
    """Count the boundary voxels, of which a ragged mask has more than a smooth one."""
    return (mask & ~ndimage.binary_erosion(mask)).sum()


def test_boundary_is_smooth_in_noise():
    truth = ball((20, 18, 10), 7)
    probability = probability_of(ball((20, 18, 10), 8), inside=0.6, outside=0.3)[None]

    refined = crf_label_map(image_of(truth, noise=0.35), probability, SPACING_MM) == 1

    assert surface(refined) < 1.08 * surface(truth)


def test_labels_stay_apart():
    left, right = ball((12, 18, 10), 6), ball((28, 18, 10), 6)
    probability = np.stack([probability_of(ball((12, 18, 10), 8), 0.6), probability_of(ball((28, 18, 10), 8), 0.6)])

    refined = crf_label_map(image_of(left, right), probability, SPACING_MM)

    assert dice(refined == 1, left) > 0.9
    assert dice(refined == 2, right) > 0.9


@pytest.mark.parametrize(
    ("radius_mm", "image"),
    [
        (3, image_of(noise=1.0)),
        (7, image_of(6.0 * ball((20, 18, 10), 2), noise=0.5)),
        (7, image_of(6.0 * ball((20, 18, 10), 4), noise=0.5)),
    ],
    ids=["no edge: nothing would stay", "bright spot: a fiftieth would stay", "bright spot: a fifth would stay"],
)
def test_label_that_the_crf_would_remove_stays_as_the_network_drew_it(radius_mm, image):
    probability = probability_of(ball((20, 18, 10), radius_mm), inside=0.55)[None]

    refined = crf_label_map(image, probability, SPACING_MM)

    np.testing.assert_array_equal(refined, label_map(probability))
    assert refined.any()


def test_empty_mask_stays_empty():
    assert not crf_label_map(image_of(ball((20, 18, 10), 7)), np.full((2, *SHAPE), 0.2), SPACING_MM).any()


def test_a_constant_image_keeps_the_networks_mask():
    truth = ball((20, 18, 10), 7)

    refined = crf_label_map(np.full(SHAPE, 5.0), probability_of(truth, 0.95, 0.02)[None], SPACING_MM)

    assert dice(refined == 1, truth) > 0.9


# Boxes of the CRF

WIDE_SHAPE = (150, 44, 30)


def wide_ball(centre, radius_mm):
    grid_mm = np.moveaxis(np.indices(WIDE_SHAPE), 0, -1) * SPACING_MM
    return np.linalg.norm(grid_mm - np.multiply(centre, SPACING_MM), axis=-1) <= radius_mm


def wide_image(*masks):
    return 1000.0 * sum(masks) + np.random.default_rng(0).normal(0, 150, WIDE_SHAPE)


@pytest.fixture
def crf_shapes(monkeypatch):
    """Shapes of the boxes of the CRF."""
    shapes = []

    def counted(image, *arguments, **options):
        shapes.append(image.shape)
        return mean_field(image, *arguments, **options)

    monkeypatch.setattr(automatic_mask, "mean_field", counted)
    return shapes


def one_box(image, probability):
    """Apply the CRF in one box around the whole mask, with the context."""
    drawn = np.argwhere(probability[0] > 0.5)
    box = Box.around(drawn).relaxed((10, 10, 5), image.shape).slices
    z_scored = (image - image.mean()) / image.std()
    posterior = np.zeros(image.shape)
    posterior[box] = mean_field(
        z_scored[box], probability[0][box], SPACING_MM, sigma_alpha=3.0, sigma_beta=0.3, sigma_smooth=1.25
    )
    return posterior > 0.5


def test_one_structure_is_refined_in_one_box(crf_shapes):
    truth = wide_ball((30, 22, 15), 8)
    image, probability = wide_image(truth), probability_of(wide_ball((31, 23, 15), 10), 0.6)[None]

    refined = crf_label_map(image, probability, SPACING_MM)

    np.testing.assert_array_equal(refined == 1, one_box(image, probability))
    assert len(crf_shapes) == 1


def test_two_distant_structures_are_refined_in_separate_boxes(crf_shapes):
    places = [(25, 22, 15), (125, 20, 14)]
    image = wide_image(*(wide_ball(place, 8) for place in places))
    masks = [wide_ball(place, 10) for place in places]
    alone = [crf_label_map(image, probability_of(drawn, 0.6)[None], SPACING_MM) for drawn in masks]
    cost = sum(np.prod(shape) for shape in crf_shapes)
    crf_shapes.clear()

    both = crf_label_map(image, probability_of(masks[0] | masks[1], 0.6)[None], SPACING_MM)

    np.testing.assert_array_equal(both, alone[0] | alone[1])
    assert sum(np.prod(shape) for shape in crf_shapes) == cost < np.prod(WIDE_SHAPE) / 2


def test_near_structures_are_refined_in_one_box(crf_shapes):
    places = [(25, 22, 15), (48, 22, 15)]
    image = wide_image(*(wide_ball(place, 6) for place in places))
    drawn = wide_ball(places[0], 7) | wide_ball(places[1], 7)

    refined = crf_label_map(image, probability_of(drawn, 0.6)[None], SPACING_MM)

    assert len(crf_shapes) == 1
    np.testing.assert_array_equal(refined == 1, one_box(image, probability_of(drawn, 0.6)[None]))


def test_distant_specks_do_not_enlarge_the_box(crf_shapes):
    truth = wide_ball((25, 22, 15), 8)
    drawn = wide_ball((25, 22, 15), 10)
    drawn[145, 40, 28] = drawn[140, 2, 2] = True
    image = wide_image(truth)

    refined = crf_label_map(image, probability_of(drawn, 0.6)[None], SPACING_MM)

    assert dice(refined == 1, truth) > 0.95
    assert max(np.prod(shape) for shape in crf_shapes) < 45 * 45 * 31


def test_a_mask_of_specks_is_refined_in_disjoint_boxes(crf_shapes):
    rng = np.random.default_rng(0)
    probability = probability_of(rng.random(WIDE_SHAPE) < 1e-3, 0.6)[None]

    crf_label_map(rng.normal(size=WIDE_SHAPE), probability, SPACING_MM)

    assert sum(np.prod(shape) for shape in crf_shapes) <= np.prod(WIDE_SHAPE)


@pytest.mark.parametrize("coarsest_mm", [2.5, 0.5])
def test_a_large_structure_is_refined_on_coarser_voxels_or_stays(monkeypatch, caplog, crf_shapes, coarsest_mm):
    monkeypatch.setattr(automatic_mask, "MAX_VOXELS", 12_000)
    monkeypatch.setattr(automatic_mask, "COARSEST_MM", coarsest_mm)
    truth, drawn = wide_ball((30, 22, 15), 9), wide_ball((30, 22, 15), 12)
    probability = probability_of(drawn, 0.6)[None]

    with caplog.at_level(logging.INFO):
        refined = crf_label_map(wide_image(truth), probability, SPACING_MM)

    if coarsest_mm > 1:
        assert dice(drawn, truth) < 0.7 and dice(refined == 1, truth) > 0.85
        assert np.prod(crf_shapes) <= 12_000
        assert "is refined on (2.0, 2.0, 2.0) mm, for its size" in caplog.text
    else:
        np.testing.assert_array_equal(refined == 1, drawn)
        assert not crf_shapes
        assert "stays as the network drew it, for its size" in caplog.text


def parts(mask):
    return ndimage.label(mask, np.ones((3, 3, 3)))


def holes(mask):
    return ndimage.binary_fill_holes(mask) & ~mask


@pytest.mark.parametrize("seed", range(4))
def test_holes_and_small_parts_are_removed(seed):
    # Spots inside a structure have the intensity of the background, and spots around it that of the structure.
    rng = np.random.default_rng(seed)
    drawn, noise = ball((20, 18, 10), 9), ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.2)
    image = (drawn ^ (noise > np.quantile(noise, 0.8))) + rng.normal(0, 0.05, SHAPE)
    probability = probability_of(drawn, 0.6, 0.4)
    raw = one_box(image, probability[None])

    refined = crf_label_map(image, probability[None], SPACING_MM) == 1

    assert holes(raw).any() or parts(raw)[1] > 1, "the CRF makes holes or small parts"
    assert not holes(refined).any()
    sizes = np.bincount(parts(refined)[0].ravel())[1:]
    assert sizes.min() >= automatic_mask.MIN_PART * sizes.max()
    assert (refined != raw).mean() < 0.01, "nothing else changes"


def test_a_hole_of_the_network_stays():
    truth = ball((20, 18, 10), 12) & ~ball((20, 18, 10), 5)

    refined = crf_label_map(image_of(truth), probability_of(truth, 0.9, 0.05)[None], SPACING_MM)

    assert refined[20, 18, 10] == 0
    assert dice(refined == 1, truth) > 0.95


def test_a_structure_in_another_is_not_filled():
    inner, outer = ball((20, 18, 10), 5), ball((20, 18, 10), 12)
    probability = np.stack([probability_of(outer & ~inner, 0.8, 0.05), probability_of(inner, 0.8, 0.05)])

    refined = crf_label_map(image_of(outer, 2 * inner), probability, SPACING_MM)

    assert refined[20, 18, 10] == 2
    assert dice(refined == 2, inner) > 0.9
    assert dice(refined == 1, outer & ~inner) > 0.9


def test_a_hole_is_filled_except_where_another_structure_is():
    before = ball((20, 18, 10), 12)
    now = np.where(before, 1, 0).astype(np.uint8)
    now[ball((20, 18, 10), 4)], now[ball((20, 18, 10), 2)] = 0, 2

    automatic_mask._fill_new_holes(now, before, 1)

    assert (now == 2).sum() == ball((20, 18, 10), 2).sum()
    assert (now > 0).sum() == before.sum()


# Masks of scans


class Bright(nn.Module):
    def forward(self, image):
        return torch.cat([-2 * (image - 2), 2 * (image - 2)], dim=1)


@pytest.mark.parametrize("crf", [False, True])
def test_mask_is_on_the_grid_of_the_scan(crf):
    truth = ball((20, 18, 10), 7)
    affine = np.array([[0, -1.0, 0, 4], [1.0, 0, 0, 5], [0, 0, -2.0, 6], [0, 0, 0, 1]])
    volume = Volume(np.asfortranarray(100 * image_of(truth)).astype(np.int16), ImageGeometry(SHAPE, affine))
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 2.0), (16, 16, 16), levels=2, base_channels=2)
    prepared = PreparedVolume(*network_image(volume, spec.spacing_mm), {})

    found = automatic_mask.automatic_mask(TrainedModel(spec, Bright(), 1), volume, prepared, crf=crf)

    assert found.dtype == np.uint8 and found.flags.f_contiguous
    assert dice(found == 1, truth) > 0.95


def test_broken_network_is_refused():
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 2.0), (16, 16, 16), levels=2, base_channels=2)
    network = spec.build().eval()
    nn.init.constant_(network.head.bias, torch.nan)
    volume = Volume(image_of(ball((20, 18, 10), 7)), ImageGeometry(SHAPE, np.diag([*SPACING_MM, 1.0])))
    prepared = PreparedVolume(*network_image(volume, spec.spacing_mm), {})

    with pytest.raises(BrokenModelError, match="Version 3 of the model is broken"):
        automatic_mask.automatic_mask(TrainedModel(spec, network, 3), volume, prepared)
