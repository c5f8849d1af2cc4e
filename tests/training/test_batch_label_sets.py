"""Label sets of batches of small patches, and the guidance of geodesics."""

import numpy as np
import pytest
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.supervision.geodesics import extreme_point_geodesics
from lib.training import batch_label_sets as module
from lib.training.batch_label_sets import LabelSetMaker
from tests.training.annotated_patches import (
    BOTH_CLICKED,
    CYST,
    LABELS,
    LESION,
    SHAPE,
    SPACING_MM,
    batch,
    clicked,
    masked,
    patch,
    random_mask,
    relaxed_box,
)


def only(label_sets, index):
    """Return the voxels (X, Y, Z) bool of one patch that are known to be of a class."""
    return label_sets[index] & (label_sets.sum(dim=0) == 1)


def of_paths(points, image, **how):
    """Return the voxels (X, Y, Z) bool on the geodesics."""
    visited = torch.zeros(SHAPE, dtype=torch.bool)
    paths = extreme_point_geodesics(image.numpy(), points.extremes_voxel, SPACING_MM, **how)
    visited[tuple(np.concatenate(paths).T)] = True
    return visited


def sets_of(*patches, labels=LABELS, geodesic="gradient_euclidean", probability=None):
    """Make the label sets of a batch; without its first axis if it has one patch."""
    make = LabelSetMaker({label: n for n, label in enumerate(labels, start=1)}, SPACING_MM, geodesic)
    label_sets = make(batch(*patches), probability)
    return label_sets[0] if len(patches) == 1 else label_sets


def test_geodesics_are_foreground_the_relaxed_box_unknown_and_the_rest_background():
    alone = patch(clicked("lesion"))
    label_sets = sets_of(alone, labels=("lesion",))

    assert torch.equal(label_sets[0], ~of_paths(clicked("lesion"), alone.image))
    assert torch.equal(label_sets[1], relaxed_box(clicked("lesion")))


def test_each_label_has_its_own_index():
    label_sets = sets_of(patch(*BOTH_CLICKED))

    assert all(only(label_sets, 1)[tuple(click)] for click in LESION)
    assert all(only(label_sets, 2)[tuple(click)] for click in CYST)


def test_absent_labels_are_excluded_everywhere():
    assert not sets_of(patch(clicked("lesion"), absent=("cyst", "of another project")))[2].any()


def test_mask_of_one_label_is_combined_with_clicks_on_the_other():
    both = masked(random_mask((0, 1)), labels=("lesion",), points=[clicked("cyst", CYST)])
    label_sets = sets_of(both)

    lesion = both.mask == 1
    paths = of_paths(clicked("cyst", CYST), both.image)
    assert torch.equal(label_sets[1], lesion)
    assert torch.equal(only(label_sets, 2), paths & ~lesion)
    assert torch.equal(only(label_sets, 0), ~relaxed_box(clicked("cyst", CYST)) & ~lesion)


def test_clicks_on_a_label_that_the_mask_covers_are_ignored(monkeypatch):
    searched = []
    monkeypatch.setattr(
        module, "batch_extreme_point_geodesics", lambda images, *rest, **how: searched.extend(images) or []
    )
    mask = random_mask()

    assert torch.equal(sets_of(masked(mask, points=[clicked("lesion")])), sets_of(masked(mask)))
    assert searched == []


def test_patches_of_a_batch_are_independent():
    patches = [
        patch(*BOTH_CLICKED, seed=1),
        masked(seed=2),
        patch(clicked("cyst"), seed=3),
        masked(random_mask((0, 1)), labels=("lesion",), points=[clicked("cyst", CYST)], seed=4),
        patch(absent=("lesion",), seed=5),
        patch(*BOTH_CLICKED[::-1], seed=6),
    ]
    probability = torch.rand(len(patches), len(LABELS), *SHAPE, generator=torch.Generator().manual_seed(0))

    together = sets_of(*patches, geodesic="deep", probability=probability)

    for n, one in enumerate(patches):
        assert torch.equal(together[n], sets_of(one, geodesic="deep", probability=probability[n : n + 1]))


# Guidance


def wall(label_index):
    """Return foreground probability 1, and 0 on a slab across the straight path between the lesion's ends in k."""
    probability = torch.ones(1, len(LABELS), *SHAPE)
    probability[0, label_index - 1, 6:9, 5:8, 4:8] = 0
    return probability


@pytest.mark.parametrize("label", LABELS)
def test_deep_geodesics_avoid_predicted_background_of_their_own_label(label):
    index = LABELS.index(label) + 1
    flat = patch(clicked(label), image=torch.zeros(SHAPE))
    background = (1 - wall(index))[0, index - 1].numpy()

    guided = sets_of(flat, geodesic="deep", probability=wall(index))

    assert torch.equal(only(guided, index), of_paths(clicked(label), flat.image, background_probability=background))
    assert not torch.equal(guided, sets_of(flat))


@pytest.mark.parametrize(("label", "other"), [LABELS, LABELS[::-1]])
def test_probability_of_another_label_does_not_guide(label, other):
    flat = patch(clicked(label), image=torch.zeros(SHAPE))
    everywhere = torch.ones(1, len(LABELS), *SHAPE)

    of_own, of_other, of_none = (
        sets_of(flat, geodesic="deep", probability=probability)
        for probability in (wall(LABELS.index(label) + 1), wall(LABELS.index(other) + 1), everywhere)
    )

    assert torch.equal(of_other, of_none)
    assert not torch.equal(of_own, of_none)


def cut(points):
    """Shift a structure across the border of the patch."""
    return ExtremePoints.from_clicks(points.label, points.foreground_voxel + [6, 0, 0])


@pytest.mark.parametrize("points", [BOTH_CLICKED, BOTH_CLICKED[:1], (cut(BOTH_CLICKED[1]),)])
def test_only_probabilities_of_tight_boxes_are_copied_from_the_device(monkeypatch, points):
    probability = torch.rand(1, len(LABELS), *SHAPE)
    in_boxes, inside = 0, torch.zeros(probability.shape, dtype=torch.bool)
    for one in points:
        low, high = one.foreground_voxel.min(axis=0), one.foreground_voxel.max(axis=0) + 1
        box = (0, LABELS.index(one.label), *(slice(a, b) for a, b in zip(low, high, strict=True)))
        in_boxes += inside[box].numel()
        inside[box] = True
    moved = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: (moved.append(tensor.numel()), tensor)[1])

    sets = sets_of(patch(*points), geodesic="deep", probability=probability)

    assert sum(moved) == in_boxes
    # Other probabilities do not change the result.
    spoilt = probability.masked_fill(~inside, torch.nan)
    assert torch.equal(sets_of(patch(*points), geodesic="deep", probability=spoilt), sets)


@pytest.mark.parametrize(("geodesic", "euclidean"), [("gradient", False), ("gradient_euclidean", True)])
def test_rows_of_table_1_without_guidance(geodesic, euclidean):
    alone = patch(clicked("lesion"))

    found = only(sets_of(alone, geodesic=geodesic), 1)
    assert torch.equal(found, of_paths(clicked("lesion"), alone.image, euclidean=euclidean))


def test_without_geodesics_only_the_six_clicks_are_foreground():
    label_sets = sets_of(patch(clicked("lesion")), geodesic="none")

    np.testing.assert_array_equal(np.argwhere(only(label_sets, 1)).T, np.unique(LESION, axis=0))
