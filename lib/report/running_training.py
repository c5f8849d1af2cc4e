"""Read the progress of a running training from its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

SILENT = timedelta(minutes=30)
"""A training that has not written for this time was probably stopped."""


@dataclass(frozen=True)
class RunningTraining:
    """Training that has begun and not ended.

    Attributes:
        started, heard: when it began, and when it wrote its statistics last.
        part, parts: number of finished parts, and of all.
        loss: training loss; None before the end of the first part.
    """

    started: datetime
    heard: datetime
    part: int
    parts: int
    loss: float | None

    def seems_stopped(self, now: datetime) -> bool:
        return now - self.heard > SILENT


def running_training(stats: Path) -> RunningTraining | None:
    """Read the progress of the running training; None if none runs or the file cannot be read.

    Args:
        stats: file with the statistics of the latest training; a finished one has a `total_time`.
    """
    try:
        content = json.loads(stats.read_bytes())
        if "total_time" in content:
            return None
        times = (float(content["start_ts"]), stats.stat().st_mtime)
        started, heard = (datetime.fromtimestamp(seconds, UTC) for seconds in times)
        loss = content.get("loss")
        figures = (int(content["epoch"]), int(content["total_epochs"]))
        return RunningTraining(started, heard, *figures, None if loss is None else float(loss))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
