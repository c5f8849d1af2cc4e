"""The loss of label sets against MONAI's losses, and against sums over single voxels in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss, FocalLoss
from torch import Tensor
from torch.nn import functional

from lib.losses.partial import FOCAL_GAMMA, TERMS, PartialLoss

SHAPE = (5, 4, 3)
SMOOTH = 1e-5


def random_logits(classes: int, patches: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(patches, classes, *SHAPE, generator=generator)).requires_grad_()


def annotated(classes: int, patches: int = 1, known: float = 0.6, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return label sets of one class or, where unknown, of all, and the labels, -1 where unknown."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (patches, *SHAPE), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) > known] = -1
    return sets_of(labels, classes), labels


def sets_of(labels: Tensor, classes: int) -> Tensor:
    one_hot = functional.one_hot(labels.clamp(min=0), classes).movedim(-1, 1).bool()
    return one_hot | (labels == -1)[:, None]


def random_sets(classes: int, patches: int = 1, seed: int = 2) -> Tensor:
    """Draw label sets uniformly from all but the empty one."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(1, 2**classes, (patches, *SHAPE), generator=generator)
    return torch.stack([(codes >> c) % 2 == 1 for c in range(classes)], dim=1)


def values(logits: Tensor, label_sets: Tensor) -> dict[str, float]:
    return {name: term.item() for name, term in PartialLoss().terms(logits, label_sets).items()}


def gradient(value: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value, logits)
    return found


# Voxels of one class, and unknown voxels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("known", [0.2, 0.6, 1.0])
def test_terms_are_those_of_monai_on_the_annotated_voxels(classes: int, known: float) -> None:
    logits = random_logits(classes)
    label_sets, labels = annotated(classes, known=known)
    chosen = labels[0] >= 0
    voxels = logits.detach().double()[:, :, chosen]  # (1, C, N)
    truth = labels[0][chosen][None, None]  # (1, 1, N)
    present = truth.unique()

    dice = DiceLoss(softmax=True, to_onehot_y=True, reduction="none", smooth_nr=SMOOTH, smooth_dr=SMOOTH)(voxels, truth)
    focal = FocalLoss(gamma=FOCAL_GAMMA, use_softmax=True, to_onehot_y=True, reduction="none")(voxels, truth)
    expected = {
        "dice": dice.flatten()[present].mean().item(),
        "cross_entropy": functional.cross_entropy(voxels, truth[:, 0]).item(),
        # Balanced: the mean over the voxels of each class, averaged over the classes.
        "focal": torch.stack([focal.sum(dim=1)[truth[:, 0] == c].mean() for c in present]).mean().item(),
    }

    assert values(logits, label_sets) == pytest.approx(expected, rel=1e-5)


def test_loss_is_the_sum_of_its_terms() -> None:
    logits, label_sets = random_logits(3, patches=2), random_sets(3, patches=2)

    assert PartialLoss()(logits, label_sets).item() == pytest.approx(sum(values(logits, label_sets).values()))


@pytest.mark.parametrize("classes", [2, 3])
def test_patches_have_equal_weight_whatever_the_number_of_known_voxels(classes: int) -> None:
    logits = random_logits(classes, patches=2)
    label_sets = torch.cat([annotated(classes, known=0.1)[0], annotated(classes, known=0.9)[0]])

    each = [values(logits[n : n + 1], label_sets[n : n + 1]) for n in range(2)]

    expected = {name: (each[0][name] + each[1][name]) / 2 for name in TERMS}
    assert values(logits, label_sets) == pytest.approx(expected)


def test_class_without_annotated_voxels_is_left_out_of_dice_and_focal() -> None:
    logits = random_logits(3)
    labels = annotated(2)[1]

    three = values(logits, sets_of(labels, 3))
    probability = logits.detach().double().softmax(dim=1)
    known = labels[0] >= 0
    dice, focal = [], []
    for c in (0, 1):
        p, truth = probability[0, c][known], labels[0][known] == c
        dice.append(1 - (2 * p[truth].sum() + SMOOTH) / (p.sum() + truth.sum() + SMOOTH))
        focal.append((-((1 - p[truth]) ** FOCAL_GAMMA) * p[truth].log()).mean())

    assert three["dice"] == pytest.approx(torch.stack(dice).mean().item(), rel=1e-5)
    assert three["focal"] == pytest.approx(torch.stack(focal).mean().item(), rel=1e-5)


def test_patch_of_background_alone_still_punishes_false_positives() -> None:
    logits = random_logits(3)

    found = gradient(PartialLoss()(logits, sets_of(torch.zeros(1, *SHAPE, dtype=torch.long), 3)), logits)

    assert (found[:, 1:] > 0).all() and (found[:, 0] < 0).all()


# Voxels of several possible classes


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_terms_of_any_label_sets_are_those_of_a_sum_over_voxels(classes: int) -> None:
    logits, label_sets = random_logits(classes), random_sets(classes)
    probability = logits.detach().double().softmax(dim=1)[0].flatten(1).T.tolist()
    sets = [{c for c in range(classes) if row[c]} for row in label_sets[0].flatten(1).T.tolist()]
    known = [(p, s) for p, s in zip(probability, sets, strict=True) if len(s) < classes]
    dice, focal = [], []
    for c in range(classes):
        of_class = [p[c] for p, s in known if s == {c}]
        settled = [p[c] for p, s in known if s == {c} or c not in s]
        if of_class:
            dice.append(1 - (2 * sum(of_class) + SMOOTH) / (sum(settled) + len(of_class) + SMOOTH))
            focal.append(sum(-((1 - p) ** 2) * math.log(p) for p in of_class) / len(of_class))

    found = values(logits, label_sets)

    cross_entropy = sum(-math.log(sum(p[c] for c in s)) for p, s in known) / len(known)
    assert found["cross_entropy"] == pytest.approx(cross_entropy, rel=1e-5)
    assert found["dice"] == pytest.approx(sum(dice) / len(dice), rel=1e-5)
    assert found["focal"] == pytest.approx(sum(focal) / len(focal), rel=1e-5)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_not_this_label_lowers_its_probability_and_keeps_the_odds_of_the_others(label: int) -> None:
    logits = random_logits(3)
    label_sets = torch.ones(1, 3, *SHAPE, dtype=torch.bool)
    label_sets[:, label] = False

    found = gradient(PartialLoss()(logits, label_sets), logits)[0]

    assert (found[label] > 0).all()
    one, other = {0, 1, 2} - {label}
    assert (found[one] < 0).all() and (found[other] < 0).all()
    odds = logits.detach().softmax(dim=1)[0]
    torch.testing.assert_close(found[one] * odds[other], found[other] * odds[one])


def test_not_this_label_has_no_dice_and_no_focal_term() -> None:
    label_sets = torch.ones(1, 3, *SHAPE, dtype=torch.bool)
    label_sets[:, 1] = False

    found = values(random_logits(3), label_sets)

    assert found["dice"] == 0 and found["focal"] == 0 and found["cross_entropy"] > 0


def test_prediction_that_is_possible_everywhere_costs_nothing() -> None:
    label_sets = random_sets(4)
    logits = torch.where(label_sets, 40.0, -40.0)

    assert PartialLoss().terms(logits, label_sets)["cross_entropy"].item() == pytest.approx(0, abs=1e-6)


# Invariance


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 5), st.integers(0, 10**6), st.sampled_from([annotated, random_sets]))
def test_order_of_voxels_does_not_matter(classes: int, seed: int, sets) -> None:  # noqa: ANN001
    logits, label_sets = random_logits(classes, seed=seed), sets(classes, seed=seed)
    label_sets = label_sets[0] if isinstance(label_sets, tuple) else label_sets
    order = torch.randperm(math.prod(SHAPE), generator=torch.Generator().manual_seed(seed))

    def shuffled(volume: Tensor) -> Tensor:
        return volume.flatten(2)[:, :, order].reshape(volume.shape)

    assert values(shuffled(logits), shuffled(label_sets)) == pytest.approx(
        values(logits, label_sets), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_names_of_classes_do_not_matter(order: tuple[int, ...]) -> None:
    logits, label_sets = random_logits(3), random_sets(3)

    assert values(logits[:, order], label_sets[:, order]) == pytest.approx(values(logits, label_sets), rel=1e-5)


def test_constant_added_to_the_logits_of_a_voxel_does_not_matter() -> None:
    logits, label_sets = random_logits(3), random_sets(3)

    shifted = values(logits + 10 * torch.randn(1, 1, *SHAPE), label_sets)

    assert shifted == pytest.approx(values(logits, label_sets), rel=1e-4)


@pytest.mark.parametrize("garbage", [50.0, math.inf, -math.inf, math.nan])
def test_unknown_voxels_change_neither_value_nor_gradient(garbage: float) -> None:
    logits, label_sets = random_logits(3, patches=2), random_sets(3, patches=2)
    unknown = label_sets.all(dim=1, keepdim=True).expand_as(logits)
    spoilt = logits.detach().masked_fill(unknown, garbage).requires_grad_()

    value, spoilt_value = PartialLoss()(logits, label_sets), PartialLoss()(spoilt, label_sets)
    found, spoilt_found = gradient(value, logits), gradient(spoilt_value, spoilt)

    assert 0 < unknown.float().mean() < 1
    assert spoilt_value.item() == value.item()
    assert (found[unknown] == 0).all() and (found[~unknown] != 0).all()
    torch.testing.assert_close(spoilt_found, found, rtol=0, atol=0)


@pytest.mark.parametrize("garbage", [1.0, math.inf, math.nan])
def test_patch_without_annotations_does_not_contribute(garbage: float) -> None:
    logits, label_sets = random_logits(3, patches=2), random_sets(3, patches=2)
    alone = PartialLoss()(logits[:1], label_sets[:1])
    label_sets[1] = True
    spoilt = torch.cat([logits[:1].detach(), torch.full_like(logits[1:], garbage)]).requires_grad_()

    value = PartialLoss()(spoilt, label_sets)

    assert value.item() == alone.item()
    assert (gradient(value, spoilt)[1] == 0).all()


@pytest.mark.parametrize("garbage", [1.0, math.inf, math.nan])
def test_batch_without_annotations_has_value_and_gradient_0(garbage: float) -> None:
    logits = torch.full((2, 3, *SHAPE), garbage, requires_grad=True)

    value = PartialLoss()(logits, torch.ones(2, 3, *SHAPE, dtype=torch.bool))

    assert value.item() == 0
    assert (gradient(value, logits) == 0).all()


# Numbers


@pytest.mark.parametrize("sets", [sets_of(annotated(3)[1], 3), random_sets(3)])
def test_gradient_is_the_slope(sets: Tensor) -> None:
    logits = random_logits(3)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5))
    step = 1e-2

    slope = (gradient(PartialLoss()(logits, sets), logits) * direction).sum().item()
    ahead, behind = (PartialLoss()((logits + side * step * direction), sets).item() for side in (1, -1))

    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=0.01)


@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
def test_certain_and_wrong_predictions_have_finite_terms_and_gradients(size: float) -> None:
    logits = (size * random_logits(3).detach().sign()).requires_grad_()

    value = PartialLoss()(logits, random_sets(3))

    assert torch.isfinite(value)
    assert torch.isfinite(gradient(value, logits)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_half_precision_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits, label_sets = random_logits(3).detach().to(dtype), random_sets(3)

    assert PartialLoss()(logits, label_sets).item() == PartialLoss()(logits.float(), label_sets).item()


# Errors


@pytest.mark.parametrize(
    ("logits_shape", "sets_shape"),
    [
        ((2, *SHAPE), (2, *SHAPE)),
        ((1, 2, *SHAPE), (1, 3, *SHAPE)),
        ((1, 2, *SHAPE), (1, *SHAPE)),
        ((1, 2, 3), (1, 2, 3)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(logits_shape: tuple[int, ...], sets_shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"do not fit: expected \(B, 1 \+ C, X, Y, Z\) for both"):
        PartialLoss()(torch.zeros(logits_shape), torch.ones(sets_shape, dtype=torch.bool))


def test_label_sets_must_be_bool() -> None:
    with pytest.raises(ValueError, match="are torch.float32; expected torch.bool"):
        PartialLoss()(random_logits(3), random_sets(3).float())


def test_voxel_of_no_class_is_refused() -> None:
    label_sets = random_sets(3)
    label_sets[0, :, 2, 2, 2] = False

    with pytest.raises(ValueError, match="may be of no class; expected at least one"):
        PartialLoss()(random_logits(3), label_sets)
