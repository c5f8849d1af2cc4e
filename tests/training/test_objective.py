"""The training objective on small patches."""

import math

import numpy as np
import pytest
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.data.patches import Patch, PatchBatch
from lib.losses.partial import PartialLoss
from lib.supervision.geodesics import extreme_point_geodesics
from lib.training import objective as module
from lib.training.hyperparameters import Hyperparameters
from lib.training.objective import InExtremISObjective

SHAPE = (20, 18, 16)
SPACING_MM = (1.0, 1.0, 2.0)
MARGIN = 2
LABELS = ("lesion", "cyst")
LESION = np.array([[3, 6, 5], [11, 6, 5], [7, 3, 5], [7, 10, 5], [7, 6, 3], [7, 6, 8]])
CYST = LESION + [5, 5, 5]


def objective(labels=LABELS, **changes):
    return InExtremISObjective(labels, SPACING_MM, Hyperparameters().changed(changes))


def clicked(label, points=LESION, background=None):
    return ExtremePoints.from_clicks(label, points, None if background is None else np.array(background))


BOTH_CLICKED = (clicked("lesion"), clicked("cyst", CYST))


def relaxed_box(points):
    """Return the relaxed box (X, Y, Z) bool, by the distance of every voxel from the tight box."""
    voxels = np.stack(np.indices(SHAPE), axis=-1)
    low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0)
    return torch.from_numpy(((voxels >= low - MARGIN) & (voxels <= high + MARGIN)).all(axis=-1))


def patch(*points, seed=0, image=None, **known):
    """Make a patch with clicks; `known` are other attributes of `Patch`."""
    if image is None:
        image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return Patch(image, tuple(points), tuple(relaxed_box(p) for p in points), **known)


def masked(mask=None, labels=LABELS, points=(), **known):
    mask = random_mask() if mask is None else mask
    return patch(*points, mask=mask, mask_labels=labels, **known)


def random_mask(classes=(0, 1, 2), seed=2):
    drawn = torch.randint(0, len(classes), SHAPE, generator=torch.Generator().manual_seed(seed))
    return torch.tensor(classes)[drawn]


def batch(*patches):
    return PatchBatch.of(patches)


def random_logits(patches=1, labels=LABELS, seed=1):
    logits = torch.randn(patches, 1 + len(labels), *SHAPE, generator=torch.Generator().manual_seed(seed))
    return logits.requires_grad_()


def gradient(value, logits):
    (found,) = torch.autograd.grad(value, logits)
    return found


def only(label_sets, index):
    """Return the voxels (X, Y, Z) bool of one patch that are known to be of a class."""
    return label_sets[index] & (label_sets.sum(dim=0) == 1)


def of_paths(points, image, **how):
    """Return the voxels (X, Y, Z) bool on the geodesics."""
    visited = torch.zeros(SHAPE, dtype=torch.bool)
    paths = extreme_point_geodesics(image.numpy(), points.extremes_voxel, SPACING_MM, **how)
    visited[tuple(np.concatenate(paths).T)] = True
    return visited


# Label sets


def sets_of(*patch_, labels=LABELS, **changes):
    (label_sets,) = objective(labels, **changes).label_sets(batch(*patch_))
    return label_sets


def test_geodesics_are_foreground_the_relaxed_box_unknown_and_the_rest_background():
    alone = patch(clicked("lesion"))
    label_sets = sets_of(alone, labels=("lesion",))

    assert torch.equal(label_sets[0], ~of_paths(clicked("lesion"), alone.image))
    assert torch.equal(label_sets[1], relaxed_box(clicked("lesion")))


def test_each_label_has_its_own_index():
    label_sets = sets_of(patch(*BOTH_CLICKED))

    assert all(only(label_sets, 1)[tuple(click)] for click in LESION)
    assert all(only(label_sets, 2)[tuple(click)] for click in CYST)


def test_clicks_on_one_label_exclude_it_elsewhere_and_not_the_other():
    label_sets = sets_of(patch(clicked("lesion")))

    outside = ~relaxed_box(clicked("lesion"))
    assert not label_sets[1, outside].any()
    assert label_sets[0, outside].all() and label_sets[2, outside].all()


def test_absent_labels_are_excluded_everywhere():
    assert not sets_of(patch(clicked("lesion"), absent=("cyst", "of another project")))[2].any()


def test_mask_of_all_labels_is_the_only_class_of_each_voxel():
    mask = random_mask()
    label_sets = sets_of(masked(mask))

    assert (label_sets.sum(dim=0) == 1).all()
    assert torch.equal(label_sets.int().argmax(dim=0), mask)


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

    together = objective().label_sets(batch(*patches), probability)

    for n, one in enumerate(patches):
        assert torch.equal(together[n], objective().label_sets(batch(one), probability[n : n + 1])[0])


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

    guided, unguided = (objective().label_sets(batch(flat), guide)[0] for guide in (wall(index), None))

    assert torch.equal(only(guided, index), of_paths(clicked(label), flat.image, background_probability=background))
    assert not torch.equal(guided, unguided)


@pytest.mark.parametrize(("label", "other"), [LABELS, LABELS[::-1]])
def test_probability_of_another_label_does_not_guide(label, other):
    flat = batch(patch(clicked(label), image=torch.zeros(SHAPE)))
    everywhere = torch.ones(1, len(LABELS), *SHAPE)

    of_own, of_other, of_none = (
        objective().label_sets(flat, probability)
        for probability in (wall(LABELS.index(label) + 1), wall(LABELS.index(other) + 1), everywhere)
    )

    assert torch.equal(of_other, of_none)
    assert not torch.equal(of_own, of_none)


def test_guidance_comes_from_the_softmax_of_the_logits():
    patches, logits = batch(patch(*BOTH_CLICKED)), random_logits() * 5

    guided = objective()(patches, logits, guided=True).label_sets

    assert torch.equal(guided, objective().label_sets(patches, logits.detach().softmax(dim=1)[:, 1:]))
    assert not torch.equal(guided, objective().label_sets(patches))


@pytest.mark.parametrize(("guided", "geodesic"), [(False, "deep"), (True, "gradient_euclidean"), (True, "gradient")])
def test_without_guidance_label_sets_do_not_depend_on_the_network(guided, geodesic):
    patches = batch(patch(*BOTH_CLICKED))

    sets = [
        objective(geodesic=geodesic)(patches, random_logits(seed=seed) * 5, guided=guided).label_sets for seed in (1, 2)
    ]

    assert torch.equal(*sets)


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

    sets = objective().label_sets(batch(patch(*points)), probability)

    assert sum(moved) == in_boxes
    # Other probabilities do not change the result.
    spoilt = probability.masked_fill(~inside, torch.nan)
    assert torch.equal(objective().label_sets(batch(patch(*points)), spoilt), sets)


@pytest.mark.parametrize(("geodesic", "euclidean"), [("gradient", False), ("gradient_euclidean", True), ("deep", True)])
def test_gradient_row_of_table_1_ignores_distances(geodesic, euclidean):
    alone = patch(clicked("lesion"))

    found = only(sets_of(alone, geodesic=geodesic), 1)
    assert torch.equal(found, of_paths(clicked("lesion"), alone.image, euclidean=euclidean))


def test_without_geodesics_only_the_six_clicks_are_foreground():
    label_sets = sets_of(patch(clicked("lesion")), geodesic="none")

    np.testing.assert_array_equal(np.argwhere(only(label_sets, 1)).T, np.unique(LESION, axis=0))


# Terms and weights


@pytest.mark.parametrize("guided", [False, True])
def test_terms_sum_to_the_loss(guided):
    patches = batch(patch(*BOTH_CLICKED, click_mask=random_mask()), masked())

    value = objective(click_mask_weight=0.3)(patches, random_logits(2), guided=guided)

    assert set(value.terms) == {"dice", "cross_entropy", "focal", "crf", "click_mask"}
    assert value.loss.item() == pytest.approx(sum(term.item() for term in value.terms.values()), rel=1e-6)
    assert value.loss.requires_grad and not any(term.requires_grad for term in value.terms.values())


def test_terms_of_the_partial_loss_are_those_of_the_label_sets():
    patches, logits = batch(patch(*BOTH_CLICKED), masked()), random_logits(2)

    value = objective()(patches, logits)

    expected = PartialLoss().terms(logits, value.label_sets)
    for name in ("dice", "cross_entropy"):
        torch.testing.assert_close(value.terms[name], expected[name].detach())


@pytest.mark.parametrize(("masks", "clicks"), [(0, 1), (1, 1), (3, 1), (2, 0)])
def test_focal_term_is_that_of_patches_with_unknown_voxels(masks, clicks):
    patches = batch(*[masked()] * masks, *[patch(*BOTH_CLICKED)] * clicks)
    logits = random_logits(masks + clicks)

    value = objective()(patches, logits)

    of_clicks = PartialLoss().terms(logits[masks:], value.label_sets[masks:])["focal"]
    torch.testing.assert_close(value.terms["focal"], of_clicks.detach() / (masks + clicks))


@pytest.mark.parametrize(
    ("weight", "term"), [("focal_weight", "focal"), ("crf_weight", "crf"), ("click_mask_weight", "click_mask")]
)
def test_weight_scales_its_own_term_only(weight, term):
    patches, logits = batch(patch(*BOTH_CLICKED, click_mask=random_mask())), random_logits()
    ones = {"focal_weight": 1, "crf_weight": 1, "click_mask_weight": 1}

    whole = objective(**ones)(patches, logits).terms
    part = objective(**{**ones, weight: 0.25})(patches, logits).terms

    assert part == {name: (0.25 if name == term else 1) * value for name, value in whole.items()}


@pytest.mark.parametrize(("weight", "term"), [("crf_weight", "crf"), ("click_mask_weight", "click_mask")])
def test_term_with_weight_0_is_not_computed(weight, term):
    both = {"crf_weight": 1, "click_mask_weight": 1}

    terms = objective(**{**both, weight: 0})(batch(patch(*BOTH_CLICKED)), random_logits()).terms

    assert set(terms) == {"dice", "cross_entropy", "focal", "crf", "click_mask"} - {term}


@pytest.mark.parametrize("weights", [{}, {"focal_weight": 0, "crf_weight": 0}, {"click_mask_weight": 1}])
def test_nan_logits_give_a_nan_loss(weights):
    logits = torch.full_like(random_logits(), torch.nan)

    assert torch.isnan(objective(**weights)(batch(patch(*BOTH_CLICKED)), logits, guided=False).loss)


# The CRF term


def crf_energy(image, probability, alpha, beta):
    """Compute the mean over voxels of the sum over all pairs in float64 (paper, Section 3.3)."""
    places = np.argwhere(np.ones(SHAPE)).astype(float)
    intensity = image.double().numpy().ravel()
    probability = probability.reshape(len(LABELS), -1).numpy()
    energy = 0.0
    for n, place in enumerate(places):
        kernel = np.exp(
            -((places - place) ** 2).sum(axis=1) / (2 * alpha**2) - (intensity - intensity[n]) ** 2 / (2 * beta**2)
        )
        energy += (probability[:, n] * ((1 - probability) @ kernel)).sum()
    return energy / math.prod(SHAPE)


@pytest.mark.parametrize("beside", [[], [masked()], [masked(), masked()]])
def test_crf_term_is_the_mean_energy_and_masked_patches_have_0(beside):
    weight, alpha, beta = 0.5, 3.0, 0.8
    one = patch(*BOTH_CLICKED)
    logits = random_logits(1 + len(beside))

    found = objective(crf_weight=weight, sigma_alpha=alpha, sigma_beta=beta)(batch(one, *beside), logits).terms["crf"]

    energy = crf_energy(one.image, logits[0].detach().double().softmax(dim=0)[1:], alpha, beta)
    assert found.item() == pytest.approx(weight * energy / (1 + len(beside)), rel=0.02)


FULLY_KNOWN = {
    "mask of all labels": masked(),
    "mask of one label, the other absent": masked(random_mask((0, 1)), labels=("lesion",), absent=("cyst",)),
    "all labels absent": patch(absent=LABELS),
}
PARTLY_KNOWN = {
    "clicks": patch(*BOTH_CLICKED),
    "mask of one label": masked(random_mask((0, 1)), labels=("lesion",)),
    "mask of one label, clicks on the other": masked(
        random_mask((0, 1)), labels=("lesion",), points=[clicked("cyst", CYST)]
    ),
    "clicks on one label, the other absent": patch(clicked("lesion"), absent=("cyst",)),
}


@pytest.mark.parametrize("known", FULLY_KNOWN.values(), ids=FULLY_KNOWN)
def test_fully_known_patch_has_no_crf_term(known):
    value = objective()(batch(known), random_logits())

    assert (value.label_sets.sum(dim=1) == 1).all()
    assert "crf" not in value.terms


@pytest.mark.parametrize("partly_known", PARTLY_KNOWN.values(), ids=PARTLY_KNOWN)
def test_crf_term_has_a_gradient_at_every_voxel(partly_known):
    weights = {"sigma_beta": 0.5, "focal_weight": 0}
    logits = random_logits(2)
    value = objective(crf_weight=1, **weights)(batch(partly_known, masked()), logits, guided=False)
    without = objective(crf_weight=0, **weights)(batch(partly_known, masked()), logits, guided=False)

    of_crf = gradient(value.loss, logits) - gradient(without.loss, logits)

    assert (value.label_sets[0].sum(dim=0) > 1).any()
    assert (of_crf[0] != 0).any(dim=0).all()
    assert (of_crf[1] == 0).all()


@pytest.mark.parametrize("partly_known", PARTLY_KNOWN.values(), ids=PARTLY_KNOWN)
def test_unknown_voxels_have_no_gradient_without_the_crf_term(partly_known):
    logits = random_logits()
    value = objective(crf_weight=0)(batch(partly_known), logits)

    found = gradient(value.loss, logits)[0]

    unknown = value.label_sets[0].all(dim=0)
    assert (found[:, unknown] == 0).all()
    assert (found[:, ~unknown] != 0).any(dim=0).all()


def test_unknown_patch_has_only_a_crf_term():
    logits = random_logits()

    with_crf, without = (objective(crf_weight=weight)(batch(patch()), logits) for weight in (1e-4, 0))

    assert with_crf.label_sets.all()
    assert with_crf.loss.item() == pytest.approx(with_crf.terms["crf"].item())
    assert without.loss.item() == 0 and (gradient(without.loss, logits) == 0).all()


def test_geodesics_have_no_gradient():
    patches, logits = batch(patch(*BOTH_CLICKED)), random_logits()

    value = objective(crf_weight=0)(patches, logits)

    torch.testing.assert_close(
        gradient(value.loss, logits), gradient(PartialLoss()(logits, value.label_sets), logits), rtol=0, atol=0
    )


# Click masks


def click_mask_term(*patches, logits):
    value = objective(click_mask_weight=1)(batch(*patches), logits, guided=False)
    return value.terms["click_mask"].item()


def dice_and_cross_entropy(logits, label_sets):
    terms = PartialLoss().terms(logits, label_sets)
    return (terms["dice"] + terms["cross_entropy"]).item()


def one_hot(mask):
    return torch.stack([mask == c for c in range(1 + len(LABELS))])[None]


def test_click_mask_of_all_labels_supervises_like_a_mask():
    mask, logits = random_mask(), random_logits()

    found = click_mask_term(patch(*BOTH_CLICKED, click_mask=mask), logits=logits)

    assert found == pytest.approx(dice_and_cross_entropy(logits, one_hot(mask)))


def test_label_without_clicks_is_possible_where_the_click_mask_is_0():
    mask, logits = random_mask((0, 1)), random_logits()
    label_sets = one_hot(mask)
    label_sets[0, 2] = mask == 0

    found = click_mask_term(patch(clicked("lesion"), click_mask=mask), logits=logits)

    assert found == pytest.approx(dice_and_cross_entropy(logits, label_sets))


def test_click_mask_of_a_label_that_an_accepted_mask_covers_is_ignored():
    click_mask, logits = random_mask(seed=5), random_logits()
    # The sets are "cyst" and "not cyst".
    label_sets = torch.stack([click_mask != 2, click_mask != 2, click_mask == 2])[None]

    found = click_mask_term(
        masked(random_mask((0, 1)), labels=("lesion",), points=BOTH_CLICKED, click_mask=click_mask), logits=logits
    )

    assert found == pytest.approx(dice_and_cross_entropy(logits, label_sets))


@pytest.mark.parametrize(
    "other", [masked(points=BOTH_CLICKED, click_mask=random_mask()), patch(*BOTH_CLICKED), patch()]
)
def test_patch_without_a_click_mask_or_with_all_labels_masked_does_not_contribute(other):
    one, logits = patch(*BOTH_CLICKED, click_mask=random_mask()), random_logits(2)

    assert click_mask_term(one, other, logits=logits) == pytest.approx(click_mask_term(one, logits=logits[:1]))
    assert click_mask_term(other, logits=logits[1:]) == 0
