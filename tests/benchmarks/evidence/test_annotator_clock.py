"""The annotator's simulated seconds beside the real seconds of a training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks.evidence import annotator_clock
from benchmarks.evidence.annotator_clock import Clock


class Training:
    """A training of so many real seconds, which pass only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.real_s, self.left_s = 1000.0, seconds
        self.ended_s: list[float] = []
        passing = SimpleNamespace(monotonic=lambda: self.real_s, sleep=self.pass_by)
        monkeypatch.setattr(annotator_clock, "time", passing)
        self.clock = Clock(lambda: self.left_s > 0, self.ended_s.append)

    def pass_by(self, seconds: float) -> None:
        self.real_s += seconds
        self.left_s -= seconds


def test_work_is_over_at_once_while_no_training_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(monkeypatch, 0)

    training.clock.spend(37)
    training.clock.spend(477)

    assert training.clock.seconds == 514 and training.real_s == 1000


def test_work_waits_until_the_training_has_come_as_far(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(monkeypatch, 300)
    training.clock.spend(37)
    training.clock.training_began()

    training.clock.spend(37)

    assert training.clock.training_runs and training.ended_s == []
    assert training.clock.seconds == 74
    assert training.real_s == pytest.approx(1037)


def test_a_training_that_ends_in_the_middle_of_work_ends_at_its_own_second(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(monkeypatch, 300)
    training.clock.spend(37)
    training.clock.training_began()

    training.clock.spend(477)

    assert not training.clock.training_runs
    assert training.ended_s == [pytest.approx(337, abs=1)]
    assert training.clock.seconds == 514, "the rest of the work is over at once"
    assert training.real_s == pytest.approx(1300, abs=1)


def test_an_annotator_whom_the_training_has_overtaken_is_set_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(monkeypatch, 300)
    training.clock.training_began()
    training.pass_by(50)

    training.clock.spend(4)

    assert training.clock.seconds == 50


def test_waiting_for_a_training_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(monkeypatch, 120)
    training.clock.spend(60)
    training.clock.training_began()

    training.clock.wait_for_training()
    training.clock.wait_for_training()

    assert training.ended_s == [pytest.approx(180, abs=1)]
    assert training.clock.seconds == training.ended_s[0]


def test_scoring_after_a_training_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(monkeypatch, 10)
    clock = Clock(lambda: training.left_s > 0, lambda ended_s: training.pass_by(500))
    clock.training_began()

    clock.spend(37)
    clock.spend(37)

    assert clock.seconds == 74
