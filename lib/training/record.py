"""Record which scans the trainings of a project used or held out, and how each training ended."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lib.annotations.atomic_write import write_atomically

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRun:
    """A finished training.

    Attributes:
        started, ended: UTC, ISO 8601.
        version: that was published, or None where the published model was better.
        iterations: in all trainings that led to the weights.
        scans: number of scans that were learnt from.
        judged_on: how many scans the score is of, and which kind: "held-out" or "training".
        score, published_score: in [0, 1] (`lib.training.gate`), of the new model and of the best that is kept; None
            where there was nothing to compare.
        loss: of the last iteration.
    """

    started: str
    ended: str
    version: int | None
    iterations: int
    scans: int
    judged_on: tuple[int, str]
    score: float | None
    published_score: float | None
    loss: float


@dataclass(frozen=True)
class TrainingRecord:
    """Image ids of scans, and all runs, the oldest first.

    Attributes:
        begun: how many trainings began, those that failed among them; each draws other patches.
    """

    trained_on: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    runs: tuple[TrainingRun, ...] = ()
    begun: int = 0

    @classmethod
    def load(cls, path: Path) -> TrainingRecord:
        """An empty record where there is none; one that cannot be read is kept aside and named in the log."""
        try:
            return cls.from_bytes(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            path.replace(path.with_suffix(".corrupt"))
            logger.error("The record %s cannot be read (%r); it is kept aside and a new one begun.", path.name, error)
            return cls()

    @classmethod
    def from_bytes(cls, content: bytes) -> TrainingRecord:
        """Raises: ValueError, KeyError, TypeError, RecursionError: they are not those of a record."""
        values = json.loads(content)
        runs = [TrainingRun(**{**run, "judged_on": tuple(run["judged_on"])}) for run in values["runs"]]
        begun = int(values.get("begun", len(runs)))
        return cls(tuple(values["trained_on"]), tuple(values["held_out"]), tuple(runs), begun)

    def to_bytes(self) -> bytes:
        """The content of the record's file."""
        return json.dumps(asdict(self), indent=1).encode()

    def save(self, path: Path) -> None:
        """Writes atomically. Raises: OSError."""
        write_atomically(path, self.to_bytes())

    def with_scans(self, image_ids: Iterable[str], held_out_share: float) -> TrainingRecord:
        """The record with a place for each scan.

        A scan that was trained on is never held out later, as the published network knows it; so only new scans
        are. They stay so, unless the share is exceeded because others are gone. Which of them does not depend on their
        order.

        Args:
            image_ids: all annotated scans.
            held_out_share: of the scans, in [0, 1), rounded down; 0 trains on all.
        """
        image_ids = set(image_ids)
        wanted = int(held_out_share * len(image_ids))
        held_out = set(sorted(set(self.held_out) & image_ids, key=_by_chance)[:wanted])
        new = sorted(image_ids - set(self.trained_on) - set(self.held_out), key=_by_chance)
        held_out |= set(new[: wanted - len(held_out)])
        trained_on = set(self.trained_on) | image_ids - held_out
        return replace(self, trained_on=tuple(sorted(trained_on)), held_out=tuple(sorted(held_out)))

    def begin(self) -> TrainingRecord:
        return replace(self, begun=self.begun + 1)

    def with_run(self, run: TrainingRun) -> TrainingRecord:
        return replace(self, runs=(*self.runs, run))


def _by_chance(image_id: str) -> bytes:
    """An order that is the same each time and has nothing to do with names, which may tell of dates or sites."""
    return hashlib.sha256(image_id.encode()).digest()
