"""List the kept versions of a model with their training runs, and roll back to one."""

from __future__ import annotations

from dataclasses import dataclass

from lib.networks.versions import ModelVersions
from lib.training.gate import Verdict
from lib.training.record import TrainingRecord, TrainingRun


class NoVersionError(LookupError):
    """The version is not kept; the message is for the user."""


@dataclass(frozen=True)
class KeptVersion:
    """Kept version of a model.

    Attributes:
        run: training that made it; None if it is not recorded, for example while the training still runs.
    """

    number: int
    is_published: bool
    run: TrainingRun | None

    @property
    def sentence(self) -> str | None:
        """Sentence with its score; None if that is not recorded."""
        if self.run is None:
            return None
        return Verdict(True, self.run.judged_on, self.run.score, self.run.published_score).reason


def kept_versions(versions: ModelVersions, record: TrainingRecord, published: int | None) -> list[KeptVersion]:
    """List all versions, the oldest first.

    Args:
        published: number of the published version, or None.
    """
    runs = {run.version: run for run in record.runs}
    numbers = {*versions.numbers(), *([published] if published is not None else [])}
    return [KeptVersion(number, number == published, runs.get(number)) for number in sorted(numbers)]


def roll_back(versions: ModelVersions, number: int, labels: tuple[str, ...] | None = None) -> None:
    """Publish a kept version again, an earlier or a later one; the next training starts from it.

    Args:
        labels: that the version must have been trained for; None for any.

    Raises:
        NoVersionError: the version is not kept.
        CheckpointError: its file cannot be used, or it was trained for other labels; the published version stays.
        OSError: a file cannot be written.
    """
    try:
        versions.roll_back(number, labels)
    except FileNotFoundError as error:
        numbers = ", ".join(map(str, versions.numbers()))
        kept = f"these are kept: {numbers}" if numbers else "none is kept"
        raise NoVersionError(f"There is no version {number}; {kept}.") from error
