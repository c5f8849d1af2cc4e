"""What accepted masks of a label tell of the next structure."""

import numpy as np
import pytest

from lib.annotations.extreme_points import mask_extremes
from lib.clickmask.box_frame import SIDE, BoxFrame
from lib.clickmask.click_mask import segment_from_clicks
from lib.clickmask.shape_atlas import (
    GENERIC_COUNT,
    MAX_SHAPES,
    MIN_GAIN,
    Shape,
    ShapeAtlas,
    generic_probability,
    likeness,
    mirrored,
)
from lib.clickmask.working_grid import WorkingGrid
from lib.geometry.boxes import Box
from lib.metrics import dice
from tests.clickmask.bodies import TURNS, blobs, clicks_on, lopsided, obeys, painted, turned, with_more

STRAIGHT = np.eye(4)


def bent(shape=(40, 30, 20), swell=1.0):
    """(X, Y, Z) bool: an arch, which fills little of its box."""
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    radius = np.hypot(x - 20, y - 4)
    return (np.abs(radius - 15) <= 3.5 * swell) & (y >= 4) & (np.abs(z - 10) <= 4 * swell)


def segmented(mask, atlas, affine=STRAIGHT, points=None):
    image = painted(mask, 125, 100, noise=25, seed=1)
    return segment_from_clicks(image, points or clicks_on(mask), (1, 1, 1), atlas=atlas, affine_ras=affine)


# Shapes


@pytest.mark.parametrize(("axes", "signs"), TURNS)
def test_shape_of_a_mask_is_that_of_the_patient(axes, signs):
    mask, affine = turned(lopsided(), STRAIGHT, axes, signs)
    found, expected = Shape.of_mask(mask, affine), Shape.of_mask(lopsided(), STRAIGHT)

    np.testing.assert_allclose(found.mask, expected.mask, atol=1e-5)
    np.testing.assert_allclose(found.extremes, expected.extremes, atol=1e-9)


def test_specks_beside_a_structure_do_not_count():
    specked = np.pad(lopsided(), 5)
    specked[1, 1, 1] = True

    np.testing.assert_allclose(Shape.of_mask(specked, STRAIGHT).mask, Shape.of_mask(lopsided(), STRAIGHT).mask)


def test_mirrored_shape_is_that_of_the_mirrored_mask():
    mirror = Shape.of_mask(lopsided()[::-1], STRAIGHT)
    found = Shape.of_mask(lopsided(), STRAIGHT).mirrored

    np.testing.assert_allclose(found.mask, mirror.mask, atol=1e-5)
    np.testing.assert_allclose(found.extremes, mirror.extremes, atol=1e-9)


def test_nothing_lies_outside_of_a_mask_that_fills_its_array():
    full = Shape.of_mask(np.ones((6, 7, 8), bool), STRAIGHT).mask
    assert full[SIDE // 2, SIDE // 2, SIDE // 2] == 1 and not full[0].any() and not full[:, :, -1].any()


# How much an atlas counts


def test_one_mask_is_the_atlas():
    shape = Shape.of_mask(bent(), STRAIGHT)
    atlas = ShapeAtlas.of([shape])

    np.testing.assert_array_equal(atlas.mean, shape.mask)
    assert (atlas.count, atlas.weight, atlas.mirrors, atlas.gain) == (1, 1 / GENERIC_COUNT, False, 0)


def test_atlas_without_shapes_is_refused():
    with pytest.raises(ValueError, match="no shapes"):
        ShapeAtlas.of([])


@pytest.mark.parametrize("count", [2, 4, 12])
def test_shapes_count_if_they_are_alike(count):
    alike = ShapeAtlas.of([Shape.of_mask(bent(swell=s), STRAIGHT) for s in np.linspace(0.8, 1.2, count)])
    random = ShapeAtlas.of([Shape.of_mask(mask, STRAIGHT) for mask in blobs(count)])

    assert (alike.weight, random.weight) == (count / GENERIC_COUNT, 0)
    assert random.gain < 0.1 < 0.3 < alike.gain


@pytest.mark.parametrize("chance", [0, 1, 2, 6])
def test_atlas_counts_where_it_predicts_left_out_masks_much_better_than_the_generic_prior(chance):
    shapes = [Shape.of_mask(m, STRAIGHT) for m in (*blobs(chance, seed=4), *[bent(swell=s) for s in (0.7, 1.0, 1.3)])]
    losses = np.zeros(2)
    for n, shape in enumerate(shapes):
        others = np.mean([of.mask for m, of in enumerate(shapes) if m != n], axis=0)
        weight, generic = (len(shapes) - 1) / GENERIC_COUNT, generic_probability(shape.extremes)
        for which, predicted in enumerate((generic, (generic + weight * others) / (1 + weight))):
            predicted = np.clip(predicted.astype(float), 0.01, 0.99)
            losses[which] -= np.mean(shape.mask * np.log(predicted) + (1 - shape.mask) * np.log(1 - predicted))
    atlas, gain = ShapeAtlas.of(shapes), 1 - losses[1] / losses[0]

    assert atlas.gain == pytest.approx(gain, abs=1e-5)
    assert atlas.weight == (len(shapes) / GENERIC_COUNT if gain > MIN_GAIN else 0)


def test_the_last_of_many_masks_count():
    old, new = Shape.of_mask(bent(), STRAIGHT), Shape.of_mask(lopsided(), STRAIGHT)
    atlas = ShapeAtlas.of([old] * 5 + [new] * MAX_SHAPES)

    assert atlas.count == MAX_SHAPES
    np.testing.assert_allclose(atlas.mean, new.mask, atol=1e-6)


def test_probability_is_the_weighted_mean_of_atlas_and_generic_prior():
    mask = bent()
    shape = Shape.of_mask(mask, STRAIGHT)
    frame = BoxFrame.around(mask_extremes(mask), STRAIGHT)
    grid = WorkingGrid.over(Box((0, 0, 0), (40, 30, 20)), (1, 1, 1), 10**6)
    atlas = ShapeAtlas.mean_of([shape], weight=3.0)
    generic = np.full(mask.shape, 0.3, np.float32)

    found = atlas.probability(generic, frame, shape.extremes, grid)
    expected = np.clip((0.3 + 3 * frame.on_grid(shape.mask, grid)) / 4, 0.01, 0.99)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_digest_tells_atlases_apart():
    shapes = [Shape.of_mask(mask, STRAIGHT) for mask in (bent(), lopsided())]
    atlases = [ShapeAtlas.mean_of(shapes[:n], weight) for n in (1, 2) for weight in (1.0, 2.0)]

    assert len({atlas.digest for atlas in atlases}) == 4
    assert ShapeAtlas.mean_of(shapes, 2.0).digest == atlases[-1].digest


# Left and right


def one_sided(side, count=6):
    return [Shape.of_mask(lopsided(scale=s)[::side], STRAIGHT) for s in np.linspace(0.9, 1.1, count)]


def test_both_sides_of_one_label_are_mirrored_onto_each_other():
    atlas = ShapeAtlas.of(one_sided(1) + one_sided(-1))

    assert atlas.mirrors and not ShapeAtlas.of(one_sided(1)).mirrors
    assert np.abs(atlas.mean - one_sided(1)[0].mask).mean() < 0.05


@pytest.mark.parametrize("side", [1, -1])
def test_atlas_of_both_sides_lies_as_the_structure_that_was_clicked(side):
    atlas = ShapeAtlas.of(one_sided(1) + one_sided(-1))
    mask = lopsided()[::side]
    frame = BoxFrame.around(mask_extremes(mask), STRAIGHT)
    grid = WorkingGrid.over(Box((0, 0, 0), (30, 36, 28)), (1, 1, 1), 10**6)

    found = atlas.probability(np.full(mask.shape, 0.5), frame, frame.extremes(mask_extremes(mask)), grid)
    assert dice(found > 0.5, mask) > 0.9


# Masks of clicks


@pytest.mark.parametrize("count", [1, 2, 6])
def test_faint_arch_is_found_once_arches_were_accepted(count):
    mask = bent()
    atlas = ShapeAtlas.of([Shape.of_mask(bent(swell=s), STRAIGHT) for s in np.linspace(0.9, 1.1, count)])

    before, after = (dice(segmented(mask, of), mask) for of in (None, atlas))
    assert after > max(0.75, before + 0.2)


@pytest.mark.parametrize(("axes", "signs"), TURNS[::5])
def test_atlas_lies_in_the_patient(axes, signs):
    atlas = ShapeAtlas.of([Shape.of_mask(bent(), STRAIGHT)])
    mask, affine = turned(bent(), STRAIGHT, axes, signs)

    assert dice(segmented(mask, atlas, affine), mask) > 0.75


def test_structures_that_have_no_shape_in_common_lose_nothing():
    masks = list(blobs(14, seed=2))
    atlas = ShapeAtlas.of([Shape.of_mask(mask, STRAIGHT) for mask in masks[:8]])

    changes = [dice(segmented(mask, atlas), mask) - dice(segmented(mask, None), mask) for mask in masks[8:]]
    assert np.mean(changes) > -0.005


def test_clicks_outweigh_the_atlas():
    mask = lopsided((40, 40, 40))
    atlas = ShapeAtlas.of([Shape.of_mask(bent(), STRAIGHT)])
    middle = np.round(np.argwhere(mask).mean(axis=0)).astype(int)
    points = with_more(clicks_on(mask), [middle], [[1, 1, 1]])

    assert obeys(segmented(mask, atlas, points=points), points)


def test_atlas_needs_the_affine():
    with pytest.raises(ValueError, match="affine_ras is None"):
        segmented(bent(), ShapeAtlas.of([Shape.of_mask(bent(), STRAIGHT)]), affine=None)


# Likeness


def extremes(masks, rng, error=0.04):
    """Of the structures, clicked with an error that is a share of the box."""
    return [Shape.of_mask(mask, STRAIGHT).extremes + rng.normal(0, error, (3, 2, 3)) for mask in masks]


def test_structures_of_one_shape_are_alike_and_random_ones_are_not(rng):
    assert likeness(extremes([lopsided()] * 6, rng)) > 2
    assert 0.8 < likeness(extremes(blobs(12), rng)) < 1.25


def test_likeness_needs_two(rng):
    with pytest.raises(ValueError, match="1 structures"):
        likeness(extremes([lopsided()], rng))


def test_mirroring_twice_changes_nothing(rng):
    (ends,) = extremes([lopsided()], rng)
    np.testing.assert_allclose(mirrored(mirrored(ends, (0, 2)), (0, 2)), ends)
