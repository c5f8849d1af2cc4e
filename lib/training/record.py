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
    """Finished training.

    Attributes:
        started, ended: UTC, ISO 8601.
        version: published version, or None if the published model was better.
        iterations: total number in all trainings that led to the weights.
        scans: number of training scans.
        judged_on: number and kind of the scans that were scored: "held-out" or "training".
        score, published_score: in [0, 1] (`lib.training.gate`), of the new model and of the best kept version; None
            without scans or versions to compare.
        loss: loss of the last iteration.
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
    """Record of the trainings of a project.

    Attributes:
        trained_on, held_out: image ids of scans.
        runs: finished trainings, the oldest first.
        begun: number of trainings that began, including failed ones; each draws other patches.
    """

    trained_on: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    runs: tuple[TrainingRun, ...] = ()
    begun: int = 0

    @classmethod
    def load(cls, path: Path) -> TrainingRecord:
        """Load a record; return an empty one if there is no file. Rename and log a file that cannot be read."""
        try:
            return cls.from_bytes(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            path.replace(path.with_suffix(".corrupt"))
            logger.error("The record %s cannot be read (%r); it was renamed and a new one begun.", path.name, error)
            return cls()

    @classmethod
    def from_bytes(cls, content: bytes) -> TrainingRecord:
        """Parse the content of a file.

        Raises:
            ValueError, KeyError, TypeError, RecursionError: it is not that of a record.
        """
        values = json.loads(content)
        runs = [TrainingRun(**{**run, "judged_on": tuple(run["judged_on"])}) for run in values["runs"]]
        begun = int(values.get("begun", len(runs)))
        return cls(tuple(values["trained_on"]), tuple(values["held_out"]), tuple(runs), begun)

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return json.dumps(asdict(self), indent=1).encode()

    def save(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            OSError: it cannot be written.
        """
        write_atomically(path, self.to_bytes())

    def with_scans(self, image_ids: Iterable[str], held_out_share: float) -> TrainingRecord:
        """Return the record with each scan assigned to training or held out.

        Only new scans are held out, because the published network was trained on the others. A held-out scan stays
        held out, unless the share is exceeded because other scans were deleted. The choice does not depend on the
        order of the scans.

        Args:
            image_ids: all annotated scans.
            held_out_share: share of the scans to hold out, in [0, 1), rounded down; 0 trains on all.
        """
        image_ids = set(image_ids)
        max_held_out = int(held_out_share * len(image_ids))
        held_out = set(sorted(set(self.held_out) & image_ids, key=_random_order)[:max_held_out])
        new = sorted(image_ids - set(self.trained_on) - set(self.held_out), key=_random_order)
        held_out |= set(new[: max_held_out - len(held_out)])
        trained_on = set(self.trained_on) | image_ids - held_out
        return replace(self, trained_on=tuple(sorted(trained_on)), held_out=tuple(sorted(held_out)))

    def begin(self) -> TrainingRecord:
        return replace(self, begun=self.begun + 1)

    def with_run(self, run: TrainingRun) -> TrainingRecord:
        return replace(self, runs=(*self.runs, run))


def _random_order(image_id: str) -> bytes:
    """Return a reproducible sort key that is independent of names, which may contain dates or sites."""
    return hashlib.sha256(image_id.encode()).digest()
