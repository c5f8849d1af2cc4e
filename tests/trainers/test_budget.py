"""How long a training runs: epochs or minutes, and an interruption costs neither."""

import time
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.trainers.budget import PolyLearningRate, TrainingBudget


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.seconds)
    return now


def test_epochs_use_up_the_budget(clock):
    budget = TrainingBudget(max_epochs=4, max_minutes=0)
    clock.seconds += 1e6

    assert [budget.used(epochs) for epochs in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_minutes_use_it_up_if_they_are_fewer(clock):
    budget = TrainingBudget(max_epochs=100, max_minutes=10)

    clock.seconds += 5 * 60
    assert budget.used(2) == pytest.approx(0.5)
    clock.seconds += 5 * 60
    assert budget.used(4) == 1


@given(st.integers(1, 50), st.data())
def test_two_parts_of_a_training_have_as_many_epochs_as_one(max_epochs, data):
    done = data.draw(st.integers(0, max_epochs - 1))
    interrupted = TrainingBudget(max_epochs, 0).used(done)

    rest = TrainingBudget(max_epochs, 0, interrupted)

    assert done + rest.epochs_left == max_epochs
    assert rest.used(rest.epochs_left) == pytest.approx(1)


def rates(budget, epochs, initial=0.01, power=0.9):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], initial)
    schedule = PolyLearningRate(optimizer, initial, power, budget)
    found = []
    for epoch in range(1, epochs + 1):
        schedule(SimpleNamespace(state=SimpleNamespace(epoch=epoch)))
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_learning_rate_is_that_of_torch_over_the_epochs():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.01)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=12, power=0.9)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()

    assert rates(TrainingBudget(12, 0), 12) == pytest.approx(expected)


def test_learning_rate_goes_on_where_it_was_interrupted():
    whole = rates(TrainingBudget(12, 0), 12)

    assert rates(TrainingBudget(12, 0, used_before=5 / 12), 7) == pytest.approx(whole[5:])
