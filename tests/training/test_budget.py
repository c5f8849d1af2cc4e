"""Budget of a training in iterations and minutes, also of interrupted ones, and its learning rate."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.training.budget import TrainingBudget, learning_rate, make_optimizer
from lib.training.hyperparameters import Hyperparameters
from tests.training.phantoms import clock


@pytest.fixture
def now(monkeypatch):
    return clock(monkeypatch)


def test_iterations_limit_the_budget(now):
    budget = TrainingBudget(iterations=4)
    now.seconds += 1e6

    assert [budget.used(iterations) for iterations in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_minutes_limit_the_budget(now):
    budget = TrainingBudget(iterations=100, max_minutes=10)

    now.seconds += 5 * 60
    assert budget.used(2) == pytest.approx(0.5)
    now.seconds += 5 * 60
    assert budget.used(4) == 1


def test_reserved_time_is_a_part_of_the_minutes(now):
    budget = TrainingBudget(iterations=100, max_minutes=10)
    budget.reserve(120)

    now.seconds += 8 * 60
    assert budget.used(2) == 1


@given(st.integers(1, 500), st.data())
def test_two_parts_of_a_training_have_as_many_iterations_as_one(iterations, data):
    done = data.draw(st.integers(0, iterations - 1))

    rest = TrainingBudget(iterations, used_before=TrainingBudget(iterations).used(done))

    assert rest.used(iterations - done) == pytest.approx(1)
    assert rest.used(iterations - done - 1) < 1


def test_two_parts_have_as_many_minutes_as_one(now):
    first = TrainingBudget(iterations=10**6, max_minutes=10)
    now.seconds += 6 * 60

    rest = TrainingBudget(iterations=10**6, max_minutes=10, used_before=first.used(0))

    now.seconds += 4 * 60
    assert rest.used(0) == pytest.approx(1)


PAPER = Hyperparameters()


def test_learning_rate_is_torch_s_poly_schedule():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], PAPER.learning_rate)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=12, power=PAPER.poly_power)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()

    budget = TrainingBudget(12)
    assert [learning_rate(PAPER, n, budget.used(n)) for n in range(12)] == pytest.approx(expected)


def test_learning_rate_is_continued_after_an_interruption():
    whole, rest = TrainingBudget(12), TrainingBudget(12, used_before=5 / 12)

    expected = [learning_rate(PAPER, n, whole.used(n)) for n in range(5, 12)]
    assert [learning_rate(PAPER, n, rest.used(n)) for n in range(7)] == pytest.approx(expected)


@given(st.integers(1, 200), st.floats(0, 1))
def test_warm_up_is_linear(warm_up, used):
    h = PAPER.changed({"warm_up_iterations": warm_up})
    rates = [learning_rate(h, n, used) for n in range(warm_up + 2)]
    schedule = learning_rate(PAPER, 0, used)

    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(schedule / (warm_up + 1))
    assert rates[-1] == rates[-2] == pytest.approx(schedule)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
        ("sgd", torch.optim.SGD, {"momentum": 0.0, "nesterov": False, "weight_decay": 0.1}),
        ("adamw", torch.optim.AdamW, {"weight_decay": 0.1}),
    ],
)
def test_optimiser_is_the_requested_one(name, kind, settings):
    h = PAPER.changed({"optimizer": name, "momentum": settings.get("momentum", 0.8), "weight_decay": 0.1})

    optimizer = make_optimizer(torch.nn.Linear(2, 1), h)

    assert type(optimizer) is kind
    assert optimizer.defaults.items() >= settings.items()
