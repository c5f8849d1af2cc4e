"""The objective on patches small enough to see through."""

import math

import numpy as np
import pytest
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.data.scans import PatchBatch
from lib.supervision.geodesics import extreme_point_geodesics
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.objective import InExtremISObjective

SHAPE = (20, 18, 16)
SPACING_MM = (1.0, 1.0, 2.0)
MARGIN = 2
LABELS = ("lesion", "cyst")
LESION = np.array([[3, 6, 5], [11, 6, 5], [7, 3, 5], [7, 10, 5], [7, 6, 3], [7, 6, 8]])
CYST = LESION + [5, 5, 5]
UNKNOWN = -1


def objective(labels=LABELS, **changes):
    return InExtremISObjective(labels, SPACING_MM, Hyperparameters().changed(changes))


def batch(*patches, image=None):
    """Each patch is a full mask, or the structures that were clicked in it."""
    if image is None:
        image = torch.randn(len(patches), 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    points = [[] if torch.is_tensor(patch) else list(patch) for patch in patches]
    masks = [patch if torch.is_tensor(patch) else None for patch in patches]
    possible = [torch.from_numpy(in_relaxed_boxes(structures)) for structures in points]
    return PatchBatch(image=image, points=points, masks=masks, possible=torch.stack(possible))


def in_relaxed_boxes(structures):
    """(X, Y, Z) bool, by the distance of every voxel from the tight boxes."""
    voxels = np.stack(np.indices(SHAPE), axis=-1)
    inside = np.zeros(SHAPE, bool)
    for points in structures:
        low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0)
        inside |= ((voxels >= low - MARGIN) & (voxels <= high + MARGIN)).all(axis=-1)
    return inside


def clicked(label, points=LESION, background=None):
    return ExtremePoints.from_clicks(label, points, None if background is None else np.array(background))


def random_logits(patches=1, labels=LABELS, seed=1):
    logits = torch.randn(patches, 1 + len(labels), *SHAPE, generator=torch.Generator().manual_seed(seed))
    return logits.requires_grad_()


def full_mask(seed=2):
    return torch.randint(0, 1 + len(LABELS), SHAPE, generator=torch.Generator().manual_seed(seed))


BOTH_CLICKED = (clicked("lesion"), clicked("cyst", CYST))


def gradient(value, logits):
    (found,) = torch.autograd.grad(value.loss, logits)
    return found


# What is known


def test_geodesics_are_foreground_the_relaxed_box_unknown_and_the_rest_background():
    patches = batch([clicked("lesion")])
    (target,) = objective(("lesion",)).target(patches, None)

    expected = np.where(in_relaxed_boxes([clicked("lesion")]), UNKNOWN, 0)
    extremes = clicked("lesion").extremes_voxel
    for path in extreme_point_geodesics(patches.image[0, 0].numpy(), extremes, SPACING_MM):
        expected[tuple(path.T)] = 1
    np.testing.assert_array_equal(target, expected)


def test_each_label_has_its_own_index():
    (target,) = objective().target(batch(BOTH_CLICKED), None)

    assert all(target[tuple(click)] == 1 for click in LESION)
    assert all(target[tuple(click)] == 2 for click in CYST)


def test_order_in_which_structures_were_clicked_does_not_matter():
    there, back = (objective().target(batch(patch), None) for patch in (BOTH_CLICKED, BOTH_CLICKED[::-1]))

    assert torch.equal(there, back)


def test_background_is_known_where_every_label_was_clicked():
    (target,) = objective().target(batch(BOTH_CLICKED), None)

    assert target[0, -1, -1] == 0


def test_label_that_was_not_clicked_may_be_anywhere_so_nothing_is_background():
    (target,) = objective().target(batch([clicked("lesion")]), None)

    assert set(target.unique().tolist()) == {UNKNOWN, 1}


def test_background_click_is_known_even_where_a_label_was_not_clicked():
    (target,) = objective().target(batch([clicked("lesion", background=[[0, 0, 0], [7, 7, 7]])]), None)

    assert np.argwhere(target.numpy() == 0).tolist() == [[0, 0, 0], [7, 7, 7]]


def test_full_mask_is_the_target_as_it_stands():
    mask = full_mask()

    assert torch.equal(objective().target(batch(mask), None)[0], mask)


def test_masks_and_clicks_share_a_batch_without_touching_each_other():
    patches = [BOTH_CLICKED, full_mask(), [clicked("cyst")]]
    image, probability = torch.randn(3, 1, *SHAPE), torch.rand(3, len(LABELS), *SHAPE)

    together = objective().target(batch(*patches, image=image), probability)

    for n, patch in enumerate(patches):
        alone = objective().target(batch(patch, image=image[n : n + 1]), probability[n : n + 1])
        assert torch.equal(together[n], alone[0])


def test_patch_beside_all_structures_is_background():
    (target,) = objective(("lesion",)).target(batch([clicked("lesion", LESION - [100, 0, 0])]), None)

    assert (target == 0).all()


# Guidance


def wall(label_index):
    """Foreground probability 1, but 0 on a slab that the straight way between the lesion's low and high k crosses."""
    probability = torch.ones(1, len(LABELS), *SHAPE)
    probability[0, label_index - 1, 6:9, 5:8, 4:8] = 0
    return probability


@pytest.mark.parametrize("label", LABELS)
def test_deep_geodesics_avoid_what_the_network_takes_for_background_of_their_own_label(label):
    flat, index = torch.zeros(1, 1, *SHAPE), LABELS.index(label) + 1
    patches = batch([clicked(label)], image=flat)
    background = (1 - wall(index))[0, index - 1].numpy()

    (target,) = objective().target(patches, wall(index))

    extremes = clicked(label).extremes_voxel
    paths = extreme_point_geodesics(flat[0, 0].numpy(), extremes, SPACING_MM, background_probability=background)
    expected = {tuple(voxel) for voxel in np.concatenate(paths).tolist()}
    assert {tuple(voxel) for voxel in np.argwhere(target.numpy() == index).tolist()} == expected
    assert not torch.equal(target, objective().target(patches, None)[0])


@pytest.mark.parametrize(("label", "other"), [LABELS, LABELS[::-1]])
def test_what_the_network_says_of_another_label_does_not_guide(label, other):
    patches = batch([clicked(label)], image=torch.zeros(1, 1, *SHAPE))
    everywhere = torch.ones(1, len(LABELS), *SHAPE)

    of_own, of_other, of_none = (
        objective().target(patches, probability)
        for probability in (wall(LABELS.index(label) + 1), wall(LABELS.index(other) + 1), everywhere)
    )

    assert torch.equal(of_other, of_none)
    assert not torch.equal(of_own, of_none)


def test_guidance_comes_from_the_softmax_of_the_logits():
    patches = batch(BOTH_CLICKED)
    logits = random_logits() * 5

    guided = objective()(patches, logits, guided=True).target

    assert torch.equal(guided, objective().target(patches, logits.detach().softmax(dim=1)[:, 1:]))


def test_without_guidance_the_network_does_not_change_what_is_known():
    patches = batch(BOTH_CLICKED)

    targets = [objective()(patches, random_logits(seed=seed) * 5, guided=False).target for seed in (1, 2)]

    assert torch.equal(*targets)


def test_gradient_row_of_table_1_leaves_distances_out():
    patches = batch([clicked("lesion")])
    extremes = clicked("lesion").extremes_voxel

    for geodesic, euclidean in (("gradient", False), ("gradient_euclidean", True), ("deep", True)):
        (target,) = objective(geodesic=geodesic).target(patches, None)
        paths = extreme_point_geodesics(patches.image[0, 0].numpy(), extremes, SPACING_MM, euclidean=euclidean)
        expected = np.zeros(SHAPE, bool)
        expected[tuple(np.concatenate(paths).T)] = True
        np.testing.assert_array_equal(target.numpy() == 1, expected)


def test_without_geodesics_the_six_clicks_alone_are_foreground():
    (target,) = objective(geodesic="none").target(batch([clicked("lesion")]), None)

    np.testing.assert_array_equal(np.argwhere(target.numpy() == 1), np.unique(LESION, axis=0))


def test_a_band_is_foreground_too_and_keeps_the_lines():
    patches = batch([clicked("lesion")])

    (lines,) = objective().target(patches, None)
    (band,) = objective(geodesic_band=1).target(patches, None)

    assert (band == 1).sum() > (lines == 1).sum()
    assert (band[lines == 1] == 1).all()


# The loss


@pytest.mark.parametrize("guided", [False, True])
def test_terms_sum_to_the_loss(guided):
    value = objective()(batch(BOTH_CLICKED, full_mask()), random_logits(2), guided=guided)

    assert set(value.terms) == {"dice", "cross_entropy", "focal", "crf"}
    assert value.loss.item() == pytest.approx(sum(value.terms.values()), rel=1e-6)


def test_the_focal_loss_is_weighed():
    patches, logits = batch(BOTH_CLICKED), random_logits()

    whole = objective()(patches, logits, guided=False).terms
    part = objective(focal_weight=0.25)(patches, logits, guided=False).terms

    assert part["focal"] == pytest.approx(0.25 * whole["focal"])
    assert part["dice"] == whole["dice"]


@pytest.mark.parametrize(("schedule", "shares"), [("constant", [1, 1, 1]), ("linear", [1, 0.75, 0])])
def test_the_focal_loss_fades_out_with_the_linear_schedule_only(schedule, shares):
    patches, logits = batch(BOTH_CLICKED), random_logits()
    whole = objective()(patches, logits, guided=False).terms

    scheduled = objective(focal_schedule=schedule)
    for progress, share in zip([0, 0.25, 1], shares, strict=True):
        terms = scheduled(patches, logits, guided=False, progress=progress).terms
        assert terms["focal"] == pytest.approx(share * whole["focal"])
        assert terms["dice"] == whole["dice"]


def test_without_weight_there_is_no_crf_term():
    value = objective(crf_weight=0)(batch(BOTH_CLICKED), random_logits(), guided=False)

    assert set(value.terms) == {"dice", "cross_entropy", "focal"}


def test_crf_term_is_its_weight_times_the_relaxed_energy_of_the_foreground():
    """Against the sum over all pairs of voxels in float64 (paper, Section 3.3)."""
    weight, alpha, beta = 0.5, 3.0, 0.8
    patches, logits = batch(BOTH_CLICKED), random_logits()
    loss = objective(crf_weight=weight, sigma_alpha=alpha, sigma_beta=beta)

    found = loss(patches, logits, guided=False).terms["crf"]

    places = np.argwhere(np.ones(SHAPE)).astype(float)
    intensity = patches.image.double().numpy().ravel()
    probability = logits.detach().double().softmax(dim=1)[0, 1:].reshape(len(LABELS), -1).numpy()
    energy = 0.0
    for n, place in enumerate(places):
        kernel = np.exp(
            -((places - place) ** 2).sum(axis=1) / (2 * alpha**2) - (intensity - intensity[n]) ** 2 / (2 * beta**2)
        )
        energy += (probability[:, n] * ((1 - probability) @ kernel)).sum()
    assert found == pytest.approx(weight * energy / math.prod(SHAPE), rel=0.02)


@pytest.mark.parametrize("patch", [BOTH_CLICKED, [clicked("lesion")], [clicked("cyst", background=[[0, 0, 0]])]])
def test_unknown_voxels_have_exactly_no_gradient_without_the_crf_term(patch):
    logits = random_logits()
    value = objective(crf_weight=0)(batch(patch), logits, guided=True)

    found = gradient(value, logits)[0]

    unknown = value.target[0] == UNKNOWN
    assert unknown.any()
    assert (found[:, unknown] == 0).all()
    assert (found[:, ~unknown] != 0).any(dim=0).all()


def test_crf_term_reaches_unknown_voxels():
    logits = random_logits()
    value = objective(sigma_beta=0.5)(batch(BOTH_CLICKED), logits, guided=False)

    assert (gradient(value, logits)[0][:, value.target[0] == UNKNOWN] != 0).any(dim=0).all()


def test_patch_in_which_nothing_is_known_has_the_gradient_of_its_crf_term_only():
    far_away = [clicked("lesion", LESION - [100, 0, 0])]
    logits = random_logits()
    with_crf = objective()(batch(far_away), logits, guided=True)
    without = objective(crf_weight=0)(batch(far_away), logits, guided=True)

    assert (with_crf.target == UNKNOWN).all()
    assert with_crf.loss.item() == pytest.approx(with_crf.terms["crf"])
    assert without.loss.item() == 0
    assert (gradient(without, logits) == 0).all()


def test_full_mask_teaches_every_voxel():
    logits = random_logits()
    value = objective(crf_weight=0)(batch(full_mask()), logits, guided=False)

    assert (gradient(value, logits)[0] != 0).any(dim=0).all()


def test_geodesics_carry_no_gradient():
    """The path is a choice of voxels; the gradient is that of the loss with the target as given."""
    patches, logits = batch(BOTH_CLICKED), random_logits()
    loss = objective()
    guided = loss(patches, logits, guided=True)

    as_mask = loss(batch(guided.target[0], image=patches.image), logits, guided=False)

    torch.testing.assert_close(gradient(guided, logits), gradient(as_mask, logits), rtol=0, atol=0)
