"""Store results of replayed annotators by arm and seed, and interpolate them by annotation time."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.annotator_plan import ARMS, Plan
from benchmarks.evidence.annotator_replay import Replay, ReplayedScan, ReplayedTraining
from benchmarks.evidence.training import hardware
from lib.annotations.atomic_write import write_atomically


@dataclass(frozen=True)
class Result:
    """Result of one arm and one seed.

    Attributes:
        scans: in the order of the work.
        trainings: in their order.
        machine: processor and cores that server, training and replay shared, in words.
    """

    arm: str
    seed: int
    plan: Plan
    scans: Sequence[ReplayedScan]
    trainings: Sequence[ReplayedTraining]
    machine: str
    date: str

    @classmethod
    def of(cls, arm: str, seed: int, work: Replay) -> Result:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        machine = f"{hardware()['gpu'] or hardware()['processor']}, {cores} core{'' if cores == 1 else 's'}"
        date = datetime.now(UTC).date().isoformat()
        return cls(arm, seed, work.plan, work.scans, work.trainings, machine, date)

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read a file. Raises: ValueError: it has another form."""
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            content["plan"] = Plan(**content["plan"])
            content["scans"] = [ReplayedScan(**scan) for scan in content["scans"]]
            content["trainings"] = [ReplayedTraining(**training) for training in content["trainings"]]
            return cls(**content)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read; delete it, and its arm is replayed anew.") from error

    def save(self, path: Path) -> None:
        """Write a file atomically. Raises: OSError."""
        write_atomically(path, json.dumps(asdict(self), indent=1).encode())

    @property
    def annotated_min(self) -> float:
        return self.scans[-1].ended_s / 60

    @property
    def end_min(self) -> float:
        """Of the last training."""
        return self.trainings[-1].ended_s / 60

    @property
    def clicked(self) -> list[ReplayedScan]:
        return [scan for scan in self.scans if scan.dices]

    @property
    def networks(self) -> list[tuple[float, float]]:
        """Minute and mean Dice on unseen scans of each network that trainings published, the first of each version."""
        found: dict[int, tuple[float, float]] = {}
        for training in self.trainings:
            if training.version is not None:
                found.setdefault(training.version, (training.ended_s / 60, float(np.mean(training.dices))))
        return list(found.values())

    def dice_at(self, minutes: float) -> float:
        """Of the automatic masks on unseen scans; NaN before the first network."""
        return next((dice for minute, dice in reversed(self.networks) if minute <= minutes), np.nan)

    def minutes_to(self, dice: float) -> float:
        """Until the automatic masks on unseen scans have a mean Dice; infinite where they never do."""
        return next((minute for minute, reached in self.networks if reached >= dice), np.inf)

    def first_masks(self, quarter: int) -> float:
        """Mean Dice of the first click masks in a quarter (0 to 3) of the clicked scans, NaN where none is clicked."""
        dices = np.array([scan.dices[0] for scan in self.clicked])
        parts = np.array_split(dices, 4)
        return float(parts[quarter].mean()) if parts[quarter].size else np.nan

    @property
    def accepted_share(self) -> float:
        """Of the clicked scans; NaN where none is clicked, or the arm never accepts."""
        may_accept = ARMS[self.arm].accepts and self.clicked
        return float(np.mean([scan.accepted for scan in self.clicked])) if may_accept else np.nan
