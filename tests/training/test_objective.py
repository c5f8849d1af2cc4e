"""The training objective on small patches."""

import math

import numpy as np
import pytest
import torch

from lib.losses.partial import PartialLoss
from lib.training.hyperparameters import Hyperparameters
from lib.training.objective import InExtremISObjective
from tests.training.annotated_patches import (
    BOTH_CLICKED,
    CYST,
    LABELS,
    SHAPE,
    SPACING_MM,
    batch,
    clicked,
    masked,
    patch,
    random_mask,
)


def objective(labels=LABELS, **changes):
    return InExtremISObjective(labels, SPACING_MM, Hyperparameters().changed(changes))


def random_logits(patches=1, labels=LABELS, seed=1):
    logits = torch.randn(patches, 1 + len(labels), *SHAPE, generator=torch.Generator().manual_seed(seed))
    return logits.requires_grad_()


def gradient(value, logits):
    (found,) = torch.autograd.grad(value, logits)
    return found


# Terms and weights


def test_geodesics_are_guided_by_the_softmax_of_the_logits():
    patches, logits = batch(patch(*BOTH_CLICKED)), random_logits() * 5

    guided, unguided = (
        objective(geodesic=geodesic)(patches, logits).label_sets for geodesic in ("deep", "gradient_euclidean")
    )

    assert torch.equal(guided, objective().label_sets(patches, logits.detach().softmax(dim=1)[:, 1:]))
    assert not torch.equal(guided, unguided)


def test_terms_sum_to_the_loss():
    patches = batch(patch(*BOTH_CLICKED, click_mask=random_mask()), masked())

    value = objective(click_mask_weight=0.3)(patches, random_logits(2))

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

    assert torch.isnan(objective(geodesic="gradient", **weights)(batch(patch(*BOTH_CLICKED)), logits).loss)


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
    weights = {"sigma_beta": 0.5, "focal_weight": 0, "geodesic": "gradient"}
    logits = random_logits(2)
    value = objective(crf_weight=1, **weights)(batch(partly_known, masked()), logits)
    without = objective(crf_weight=0, **weights)(batch(partly_known, masked()), logits)

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
    value = objective(click_mask_weight=1)(batch(*patches), logits)
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
