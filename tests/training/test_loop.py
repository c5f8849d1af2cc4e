"""The loop: so many steps, at these rates, and none on figures that are no numbers."""

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
    """The mean square of the logits, times what stands for this call."""

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


def test_as_many_steps_as_the_budget_has_and_their_shares():
    told = [(step.iteration, step.used) for step, _, _ in steps(network(), Objective())]

    assert told == [(1, 0.2), (2, 0.4), (3, 0.6), (4, 0.8), (5, 1.0)]


def test_each_step_has_the_rate_of_the_schedule():
    for step, rate, h in steps(network(), Objective(), warm_up_iterations=3):
        assert rate == pytest.approx(learning_rate(h, step.iteration - 1, (step.iteration - 1) / 5))


def test_steps_make_the_loss_less():
    values = [step.value.loss.item() for step, _, _ in steps(network(), Objective(), learning_rate=0.1)]

    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


def test_what_is_done_between_two_steps_counts_as_time(monkeypatch):
    now = clock(monkeypatch)
    told = []
    for step, _, _ in steps(network(), Objective(), TrainingBudget(1000, max_minutes=1)):
        told.append(step.used)
        now.seconds += 25

    assert told == pytest.approx([0.001, 25 / 60, 50 / 60, 1])


def test_a_budget_that_is_used_up_has_one_step():
    """The rest of a training that was interrupted just before its end: it is judged, and nothing is learnt any more."""
    of = network()
    before = of.weight.clone()

    told = [(step.iteration, step.used) for step, _, _ in steps(of, Objective(), TrainingBudget(5, used_before=1.0))]

    assert told == [(1, 1.0)]
    assert torch.equal(of.weight, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_output_that_is_no_number_ends_it_before_anything_is_computed_of_it(value):
    """The geodesics, which the probabilities guide, would end in an error that nobody understands."""
    of, objective = network(), Objective()
    with torch.no_grad():
        of.bias[1] = value

    with pytest.raises(TrainingError, match="^The output of the network became .*; try again with a lower learning_"):
        list(steps(of, objective))
    assert objective.calls == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_no_number_ends_it_before_the_step(value):
    of = network()
    with pytest.raises(TrainingError, match=f"^The loss became {value}; try again with a lower learning_rate"):
        for _ in steps(of, Objective(1.0, value)):
            weights = of.weight.clone()
    assert torch.equal(of.weight, weights)


def test_gradient_that_is_no_number_ends_it_at_the_next_step():
    def objective(batch, logits):
        # 0, and the root has no slope there.
        return ObjectiveValue((logits * 0).sqrt().sum(), {}, torch.empty(0))

    with pytest.raises(TrainingError, match="^The output of the network became nan"):
        list(steps(network(), objective))


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_gradient_is_no_longer_than_the_limit(clip):
    of = network()
    before = torch.cat([p.detach().flatten().clone() for p in of.parameters()])

    next(steps(of, Objective(1e4), gradient_clip=clip, learning_rate=1.0))

    moved = (torch.cat([p.detach().flatten() for p in of.parameters()]) - before).norm().item()
    assert moved == pytest.approx(clip, rel=1e-3) if clip else moved > 1
