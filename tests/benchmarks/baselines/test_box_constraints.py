"""Constraints hold for a mask that fills its box as it should, and pull where they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.baselines.box_constraints import BoxConstraintsObjective, log_barrier, slab_violations
from lib.annotations.extreme_points import ExtremePoints
from lib.data.patches import Patch, PatchBatch
from lib.losses.partial import PartialLoss
from lib.training.hyperparameters import Hyperparameters
from tests.benchmarks.baselines.phantoms import relaxed_box

SHAPE = (24, 22, 16)
MARGIN = 2


def ball_mask() -> np.ndarray:
    grid = np.moveaxis(np.indices(SHAPE), 0, -1)
    return np.linalg.norm((grid - [11, 10, 8]) / [6, 5, 4], axis=-1) <= 1


def clicks_of(mask: np.ndarray) -> ExtremePoints:
    voxels = np.argwhere(mask)
    ends = [voxels[voxels[:, axis] == end(voxels[:, axis])][0] for axis in range(3) for end in (np.min, np.max)]
    return ExtremePoints.from_clicks("lesion", np.array(ends))


def batch_of(points: ExtremePoints) -> PatchBatch:
    box = torch.from_numpy(relaxed_box(SHAPE, points.foreground_voxel, MARGIN))
    return PatchBatch.of([Patch(torch.zeros(SHAPE), (points,), (box,))])


def objective() -> BoxConstraintsObjective:
    return BoxConstraintsObjective(("lesion",), (1.0, 1.0, 1.0), Hyperparameters.of_preset("cpu"))


def logits_of(mask: np.ndarray) -> torch.Tensor:
    foreground = torch.from_numpy(np.where(mask, 10.0, -10.0)).float()
    return torch.stack([torch.zeros(SHAPE), foreground])[None].requires_grad_()


@pytest.mark.parametrize("t", [1.0, 5.0, 40.0])
def test_the_barrier_is_the_logarithm_and_beyond_the_joint_its_tangent(t: float) -> None:
    z = torch.tensor([-3.0, -1.0, -2 / t**2, -1 / t**2, 0.0, 2.0], dtype=torch.float64, requires_grad=True)

    value = log_barrier(z, t)
    (gradient,) = torch.autograd.grad(value.sum(), z)

    for x, found, slope in zip(z.tolist(), value.tolist(), gradient.tolist(), strict=True):
        if x <= -1 / t**2:
            assert found == pytest.approx(-np.log(-x) / t) and slope == pytest.approx(-1 / (t * x))
        else:
            at_joint = -np.log(1 / t**2) / t
            assert found == pytest.approx(at_joint + t * (x + 1 / t**2)) and slope == pytest.approx(t)


@pytest.mark.parametrize("t", [1.0, 5.0, 40.0])
def test_value_and_slope_are_continuous_at_the_joint(t: float) -> None:
    z = (-1 / t**2 + torch.tensor([-1e-9, 1e-9], dtype=torch.float64)).requires_grad_()

    below, above = value = log_barrier(z, t)
    (slopes,) = torch.autograd.grad(value.sum(), z)

    assert below.item() == pytest.approx(above.item(), abs=1e-6)
    torch.testing.assert_close(slopes, torch.full_like(slopes, t), rtol=1e-5, atol=0)


def test_slabs_are_met_by_the_true_mask_and_broken_by_an_empty_one() -> None:
    voxels = np.argwhere(ball_mask())
    inside = torch.from_numpy(ball_mask()[tuple(map(slice, voxels.min(axis=0), voxels.max(axis=0) + 1))]).float()

    for axis in range(3):
        assert (slab_violations(inside, axis, 3) <= 0).all()
        assert (slab_violations(inside * 0, axis, 3) == 1).all()


def test_a_slab_without_the_structure_alone_is_broken() -> None:
    inside = torch.ones(9, 6, 6)
    inside[3:6] = 0

    assert (slab_violations(inside, 0, 3) > 0).tolist() == [False, True, False]


def test_the_gradient_fills_a_slab_without_the_structure() -> None:
    mask = ball_mask()
    emptied = mask.copy()
    emptied[8:11] = False  # the second slab of the box, whose first voxel is 5
    logits = torch.stack([torch.zeros(SHAPE), torch.from_numpy(np.where(emptied, 6.0, -6.0)).float()])[None]
    logits.requires_grad_()

    loss = objective()(batch_of(clicks_of(mask)), logits).loss
    (gradient,) = torch.autograd.grad(loss, logits)

    empty, filled = gradient[0, 1, 8:11, 5:16, 4:13], gradient[0, 1, 11:14, 5:16, 4:13]
    assert (empty < 0).all(), "descent raises the probability"
    assert empty.mean() < 2 * filled.mean() < 0, "and more than where the slab is filled"


def test_the_true_mask_costs_less_than_nothing_everything_or_the_box() -> None:
    mask, points = ball_mask(), clicks_of(ball_mask())
    box = relaxed_box(SHAPE, points.foreground_voxel, 0)

    def loss(candidate: np.ndarray) -> float:
        return objective()(batch_of(points), logits_of(candidate)).loss.item()

    assert loss(mask) < min(loss(mask & False), loss(mask | True), loss(box))


def test_free_logits_end_at_a_mask_that_meets_every_constraint() -> None:
    points = clicks_of(ball_mask())
    logits = torch.zeros(1, 2, *SHAPE, requires_grad=True)
    loss, optimizer = objective(), torch.optim.Adam([logits], lr=0.3)
    for _ in range(120):
        optimizer.zero_grad()
        loss(batch_of(points), logits).loss.backward()
        optimizer.step()

    probability = logits.softmax(dim=1)[0, 1].detach()
    inside = relaxed_box(SHAPE, points.foreground_voxel, 0)
    assert probability[torch.from_numpy(~relaxed_box(SHAPE, points.foreground_voxel, MARGIN))].max() < 0.5
    low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0) + 1
    in_box = probability[tuple(map(slice, low, high))]
    assert 0.45 <= in_box.mean() <= 0.65
    assert all((slab_violations(in_box, axis, 3) <= 0).all() for axis in range(3))
    assert inside.sum() == in_box.numel()


def test_a_box_that_the_patch_cuts_is_not_constrained() -> None:
    points = clicks_of(ball_mask())
    shifted = ExtremePoints.from_clicks("lesion", points.foreground_voxel - [9, 0, 0])

    terms = objective()(batch_of(shifted), logits_of(ball_mask() & False)).terms

    assert "constraints" not in terms


def test_of_a_patch_that_nobody_clicked_nothing_is_known() -> None:
    value = objective()(PatchBatch.of([Patch(torch.zeros(SHAPE))]), logits_of(ball_mask()))

    assert value.label_sets.all()
    assert value.loss.item() == 0


def test_outside_of_the_relaxed_box_is_background() -> None:
    points, logits = clicks_of(ball_mask()), logits_of(np.roll(ball_mask(), 2, axis=0))
    outside = ~torch.from_numpy(relaxed_box(SHAPE, points.foreground_voxel, MARGIN))

    value = objective()(batch_of(points), logits)

    assert value.label_sets[0, 0].all() and torch.equal(~value.label_sets[0, 1], outside)
    expected = PartialLoss().terms(logits, value.label_sets)
    for name, term in expected.items():
        torch.testing.assert_close(value.terms[name], term.detach())


def test_the_barrier_gets_steeper_from_step_to_step() -> None:
    loss = objective()
    first = loss.t
    for _ in range(loss.options.iterations_per_step):
        loss(batch_of(clicks_of(ball_mask())), logits_of(ball_mask()))

    assert loss.t == pytest.approx(1.1 * first)


def test_calls_that_do_not_train_leave_the_barrier_as_it_is() -> None:
    loss = objective()
    first = loss.t
    with torch.no_grad():
        for _ in range(loss.options.iterations_per_step):
            loss(batch_of(clicks_of(ball_mask())), logits_of(ball_mask()))

    assert loss.t == first


def test_constraints_weigh_a_tenth_of_their_barrier() -> None:
    loss = objective()

    terms = loss(batch_of(clicks_of(ball_mask())), logits_of(ball_mask() & False)).terms

    # Next to nothing is predicted: every slab is broken by 1; the least size by 1, and the largest is met by as much.
    whole = [log_barrier(torch.tensor(z), loss.t).item() for z in (1.0, -1.0)]
    assert terms["constraints"] == pytest.approx(0.1 * (whole[0] + sum(whole) / 2) / 2, rel=0.01)


def test_a_long_training_does_not_end_in_a_barrier_that_drowns_all_else() -> None:
    loss = objective()
    loss.iteration = 300 * loss.options.iterations_per_step
    logits = logits_of(ball_mask() & False)

    value = loss(batch_of(clicks_of(ball_mask())), logits).loss

    assert loss.t == loss.options.largest_t
    assert value.item() < 1000


def test_several_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one"):
        BoxConstraintsObjective(("lesion", "cyst"), (1.0, 1.0, 1.0), Hyperparameters.of_preset("cpu"))
