"""List the kept versions of a model with their training runs, and roll back to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lib.networks.versions import ModelVersions
from lib.training.gate import Verdict
from lib.training.record import TrainingRecord, TrainingRun


class NoVersionError(LookupError):
    """A version that is not kept; its text is for the user."""


@dataclass(frozen=True)
class KeptVersion:
    """A version.

    Attributes:
        run: the training that made it; None where that is not recorded, as of a training that goes on.
    """

    number: int
    is_published: bool
    run: TrainingRun | None

    @property
    def sentence(self) -> str | None:
        """How it was judged; None where that is not recorded."""
        if self.run is None:
            return None
        return Verdict(True, self.run.judged_on, self.run.score, self.run.published_score).reason


def kept_versions(versions: ModelVersions, record: TrainingRecord, published: int | None) -> list[KeptVersion]:
    """All versions, the oldest first.

    Args:
        published: number of the published one; None where nothing is.
    """
    runs = {run.version: run for run in record.runs}
    numbers = {*versions.numbers(), *([published] if published is not None else [])}
    return [KeptVersion(number, number == published, runs.get(number)) for number in sorted(numbers)]


def roll_back(versions: ModelVersions, number: int) -> None:
    """Publishes a kept version again, an earlier or a later one; trainings go on from it.

    Raises:
        NoVersionError: it is not kept.
        CheckpointError: its file cannot be used; what is published stays.
        OSError: it cannot be written.
    """
    try:
        versions.roll_back(number)
    except FileNotFoundError as error:
        raise NoVersionError(f"There is no version {number}; {_told(versions.numbers())}.") from error


def _told(numbers: Sequence[int]) -> str:
    return f"these are kept: {', '.join(map(str, numbers))}" if numbers else "none is kept"
