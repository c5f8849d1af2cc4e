"""The training loop: number of steps, learning rates, and values that are not finite."""

from itertools import repeat

import pytest
import torch
from torch import nn

from lib.data.patches import Patch, PatchBatch
from lib.training.budget import TrainingBudget, learning_rate, make_optimizer
from lib.training.hyperparameters import Hyperparameters
from lib.training.loop import TrainingError, train
from lib.training.objective import ObjectiveValue
from tests.training.phantoms import clock

BATCH = PatchBatch.of([Patch(torch.linspace(-1, 1, 64).reshape(4, 4, 4))])


def network():
    torch.manual_seed(0)
    return nn.Conv3d(1, 2, 1)


class Objective:
    """Mean square of the logits, times a factor for each call."""

    def __init__(self, *factors):
        self.factors = iter(factors)
        self.calls = 0

    def __call__(self, batch, logits):
        self.calls += 1
        return ObjectiveValue(next(self.factors, 1.0) * logits.square().mean(), {}, torch.empty(0))


def steps(of, objective, budget=None, **changes):
    h = Hyperparameters(**{"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "iterations": 5, **changes})
    optimizer = make_optimizer(of, h)
    budget = budget or TrainingBudget(h.iterations)
    for step in train(of, optimizer, repeat(BATCH), objective, h, budget, torch.device("cpu")):
        yield step, optimizer.param_groups[0]["lr"], h


def test_steps_use_up_the_budget():
    found = [(step.iteration, step.used) for step, _, _ in steps(network(), Objective())]

    assert found == [(1, 0.2), (2, 0.4), (3, 0.6), (4, 0.8), (5, 1.0)]


def test_each_step_has_the_rate_of_the_schedule():
    for step, rate, h in steps(network(), Objective(), warm_up_iterations=3):
        assert rate == pytest.approx(learning_rate(h, step.iteration - 1, (step.iteration - 1) / 5))


def test_steps_lower_the_loss():
    values = [step.value.loss.item() for step, _, _ in steps(network(), Objective(), learning_rate=0.1)]

    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


def test_time_of_the_caller_between_two_steps_is_counted(monkeypatch):
    now = clock(monkeypatch)
    used = []
    for step, _, _ in steps(network(), Objective(), TrainingBudget(1000, max_minutes=1)):
        used.append(step.used)
        now.seconds += 25

    assert used == pytest.approx([0.001, 25 / 60, 50 / 60, 1])


def test_a_used_up_budget_has_one_step_which_changes_no_weights():
    of = network()
    before = of.weight.clone()

    found = [(step.iteration, step.used) for step, _, _ in steps(of, Objective(), TrainingBudget(5, used_before=1.0))]

    assert found == [(1, 1.0)]
    assert torch.equal(of.weight, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_output_ends_the_training_before_the_objective(value):
    of, objective = network(), Objective()
    with torch.no_grad():
        of.bias[1] = value

    with pytest.raises(TrainingError, match="^The output of the network became .*; try again with a lower learning_"):
        list(steps(of, objective))
    assert objective.calls == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_loss_ends_the_training_before_the_step(value):
    of = network()
    with pytest.raises(TrainingError, match=f"^The loss became {value}; try again with a lower learning_rate"):
        for _ in steps(of, Objective(1.0, value)):
            weights = of.weight.clone()
    assert torch.equal(of.weight, weights)


def test_non_finite_gradient_ends_the_training_at_the_next_step():
    def objective(batch, logits):
        # The value is 0, and the gradient of the root is infinite.
        return ObjectiveValue((logits * 0).sqrt().sum(), {}, torch.empty(0))

    with pytest.raises(TrainingError, match="^The output of the network became nan"):
        list(steps(network(), objective))


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_gradient_is_clipped(clip):
    of = network()
    before = torch.cat([p.detach().flatten().clone() for p in of.parameters()])

    next(steps(of, Objective(1e4), gradient_clip=clip, learning_rate=1.0))

    moved = (torch.cat([p.detach().flatten() for p in of.parameters()]) - before).norm().item()
    assert moved == pytest.approx(clip, rel=1e-3) if clip else moved > 1
