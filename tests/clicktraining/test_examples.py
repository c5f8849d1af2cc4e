"""Structures to learn from: made by chance, turned, and cut out of scans."""

import numpy as np
import pytest
from scipy import ndimage

from lib.clickmask.structure_net import FEATURES
from lib.clicktraining.examples import MIN_EXTENT, MIN_VOXELS, Example, random_rotation
from lib.clicktraining.random_bodies import KINDS, random_body
from lib.clicktraining.random_structures import MAX_VOXELS, random_structure
from lib.clicktraining.real_structures import example_of, real_samples
from lib.clicktraining.samples import VOXELS, sample
from lib.clicktraining.turned_structures import THICKEST, turned
from lib.geometry.boxes import Box


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def ellipsoid_scan(radii=(9, 6, 4), spacing_mm=(1.0, 1.0, 1.0), pad=12):
    shape = tuple(2 * (r + pad) + 1 for r in radii)
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    mask = sum(((g - r - pad) / r) ** 2 for g, r in zip(grid, radii, strict=True)) <= 1
    image = np.where(mask, 300.0, 100.0) + np.random.default_rng(0).normal(0, 10, shape)
    return Example(image.astype(np.float32), mask, spacing_mm)


def _is_cut(mask):
    """Tell whether a mask reaches the border of its scan."""
    return any(mask.take(end, axis).any() for axis in range(3) for end in (0, -1))


def check(example):
    assert example.image.shape == example.mask.shape and example.image.dtype == np.float32
    assert np.isfinite(example.image).all()
    assert ndimage.label(example.mask)[1] == 1
    assert example.mask.sum() >= MIN_VOXELS
    assert np.ptp(np.argwhere(example.mask), axis=0).min() + 1 >= MIN_EXTENT


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_body_is_a_body(kind, rng):
    """It holds some points near the origin, and not all."""
    points = rng.uniform(-1.2, 1.2, (4000, 3))
    inside = [kind(rng)(points) for _ in range(8)]

    assert all(of.shape == (4000,) and of.dtype == bool for of in inside)
    assert np.any(inside)
    assert max(of.mean() for of in inside) < 0.5


def test_bodies_are_of_all_sorts(rng):
    """Some fill much of their box, some little."""
    points = rng.uniform(-1, 1, (20_000, 3))
    shares = []
    for _ in range(60):
        inside = points[random_body(rng)(points)]
        if len(inside) > 5:
            shares.append(len(inside) / 20_000 * 8 / np.prod(np.ptp(inside, axis=0)))

    assert min(shares) < 0.12
    assert max(shares) > 0.45


def test_random_structures_can_be_learnt_from(rng):
    examples = [random_structure(rng) for _ in range(25)]

    for example in examples:
        check(example)
        assert example.mask.size <= MAX_VOXELS
        assert min(example.spacing_mm) == 1
    assert len({example.spacing_mm for example in examples}) > 5
    assert sum(_is_cut(example.mask) for example in examples) <= 5, "most scans go on around their structure"
    brighter = [e.image[e.mask].mean() > e.image[~e.mask].mean() for e in examples]
    assert 5 < sum(brighter) < 20


def test_the_same_seed_gives_the_same_structures():
    one, other = (random_structure(np.random.default_rng(5)) for _ in range(2))

    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.mask, other.mask)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 1.0, 4.0)])
def test_a_turned_structure_is_the_same_one(spacing_mm, rng):
    example = ellipsoid_scan(spacing_mm=spacing_mm)

    found = [turned(rng, example) for _ in range(12)]

    for of in found:
        check(of)
        thicker = np.divide(of.spacing_mm, spacing_mm)
        assert 1 <= thicker.max() <= THICKEST and np.count_nonzero(thicker != 1) <= 1
        assert of.image[of.mask].mean() == pytest.approx(300, abs=30)
        assert of.image[~ndimage.binary_dilation(of.mask, iterations=2)].mean() == pytest.approx(100, abs=10)
        # Stretched by at most e^0.35 along each axis.
        assert np.exp(-1.1) < of.mask.sum() * thicker.max() / example.mask.sum() < np.exp(1.1)
    assert len({of.spacing_mm for of in found}) > 2
    extents = [tuple(np.ptp(np.argwhere(of.mask), axis=0)) for of in found]
    assert len(set(extents)) > 8


def test_rotations_keep_lengths(rng):
    rotation = random_rotation(rng)

    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_an_example_is_the_structure_in_its_surroundings(rng):
    image = rng.normal(size=(60, 50, 40))
    box = Box((20, 2, 15), (30, 12, 20))
    mask = np.ones(box.shape, bool)

    example = example_of(image, box, mask, (1, 1, 2))

    room = Box((8, 0, 3), (42, 24, 32))
    np.testing.assert_array_equal(example.image, image[room.slices].astype(np.float32))
    np.testing.assert_array_equal(np.argwhere(example.mask).min(axis=0), np.subtract(box.start, room.start))
    assert example.mask.sum() == mask.sum()


@pytest.mark.parametrize("shape", [(4, 4, 4), (40, 40, 2)])
def test_structures_that_are_too_small_are_left_out(shape):
    assert example_of(np.zeros((50, 50, 50)), Box((0, 0, 0), shape), np.ones(shape, bool), (1, 1, 1)) is None


def test_a_sample_stands_for_all_voxels_around_its_structure(rng):
    example = ellipsoid_scan((14, 12, 10))

    features, inside, weight = sample(rng, example)

    assert features.shape == (VOXELS, len(FEATURES))
    assert inside.sum() == VOXELS // 2
    assert weight.sum() == pytest.approx(1, abs=1e-3)
    box = np.prod(np.array([29, 25, 21]) + 4)
    assert weight[inside].sum() == pytest.approx(example.mask.sum() / box, rel=0.1)
    assert np.isfinite(features).all()


def test_real_structures_are_sampled_as_they_are_and_turned(rng):
    samples = list(real_samples(rng, [ellipsoid_scan(), ellipsoid_scan((5, 5, 5))], 3))

    assert len(samples) == 2 * 2 + 3
