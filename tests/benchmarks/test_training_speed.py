"""Parts of an iteration are timed once each, and make up the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.evidence.dataset import Dataset
from benchmarks.training_speed import CLICK_MASKS, LOADING, LOSS, REST, Clock, TimedTraining
from lib.data.prepared_scans import PreparedScans
from lib.training.hyperparameters import Hyperparameters
from tests.benchmarks.evidence.folders import write_dataset

TINY = {"roi_size": "16x16x8", "levels": 2, "base_channels": 2, "train_batch_size": 1}


class SteppedClock(Clock):
    """A second passes each time it is read."""

    seconds_passed = 0.0

    def now(self) -> float:
        self.seconds_passed += 1
        return self.seconds_passed


def test_a_part_inside_another_counts_to_that_one() -> None:
    clock = SteppedClock(torch.device("cpu"))
    inner = clock.timed("inner", lambda: 1)
    outer = clock.timed("outer", lambda: inner() + inner())

    assert (outer(), inner()) == (2, 1)
    assert dict(clock.seconds) == {"outer": 1, "inner": 1}


def test_a_part_that_fails_ends_its_time() -> None:
    clock = SteppedClock(torch.device("cpu"))
    with pytest.raises(ZeroDivisionError):
        clock.timed("broken", lambda: 1 / 0)()

    assert clock.timed("sound", lambda: 1)() == 1
    assert dict(clock.seconds) == {"broken": 1, "sound": 1}


@pytest.mark.parametrize(("preset", "not_learnt_from"), [("cpu", set()), ("paper", {CLICK_MASKS})])
def test_every_part_of_an_iteration_takes_time(tmp_path: Path, preset: str, not_learnt_from: set[str]) -> None:
    dataset = Dataset.open(write_dataset(tmp_path / "dataset"))
    scans = [dataset.annotated_scan(case, dataset.annotations(case, "exact")) for case in dataset.cases["training"]]
    h = Hyperparameters.of_preset(preset).changed(TINY)  # type: ignore[arg-type]

    training = TimedTraining.on(scans, dataset.labels, h, PreparedScans(tmp_path / "prepared"), torch.device("cpu"))
    seconds = training.seconds_of_parts(float("inf"), 2)

    assert {name for name, of_part in seconds.items() if of_part <= 0} == not_learnt_from
    assert list(seconds)[0] == LOADING and list(seconds)[-1] == REST and LOSS in seconds
    assert training.model.spec.labels == dataset.labels
