"""Summarise the running or the last training for the annotation page."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_RUNNING = ("SUBMITTED", "RUNNING")
# Head of a log line, as in `lib.server.process.logs.FORMAT`.
_LOG_HEAD = re.compile(r"^(\[[^\]]*\] )+\([^)]*\) - ")
_MAX_CHARACTERS = 500


def training_progress(task: Mapping[str, Any] | None, stats: Mapping[str, Any], lines: Sequence[str]) -> dict[str, Any]:
    """Return the progress of a training.

    Args:
        task: running or latest task of MONAI Label; None if this server has started none.
        stats: statistics that the training has written (`InExtremISTrainTask.stats`); those of an earlier training if
            the one of the task has not begun yet.
        lines: last lines of its log, the newest last.
    """
    status = task["status"] if task is not None else None
    running = status in _RUNNING
    if task is not None and not _are_of(stats, task):
        stats = {"total_epochs": stats.get("total_epochs", 0)}
    epoch, epochs = int(stats.get("epoch", 0)), int(stats.get("total_epochs", 0))
    progress = epoch / epochs if epochs else 0.0
    return {
        "running": running,
        "started": _started(task, stats),
        "progress": progress,
        "epoch": epoch,
        "epochs": epochs,
        "sentence": stats.get("verdict"),
        "remaining_s": _remaining_s(stats, progress) if running else None,
        "error": _error(lines) if status == "ERROR" else None,
    }


def _are_of(stats: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    """Tell whether statistics are from the training of this task, and not from an earlier one."""
    return float(stats.get("start_ts", 0)) >= _seconds(task) - 1


def _seconds(task: Mapping[str, Any]) -> float:
    """Return when a task was made, in seconds since 1970; MONAI Label writes local times."""
    return datetime.strptime(task["start_ts"], "%Y-%m-%d %H:%M:%S").timestamp()


def _started(task: Mapping[str, Any] | None, stats: Mapping[str, Any]) -> str | None:
    seconds = _seconds(task) if task is not None else stats.get("start_ts")
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _remaining_s(stats: Mapping[str, Any], progress: float) -> float | None:
    """Extrapolate from the parts after the first, which prepares the scans; None before the first has ended."""
    if not 0 < progress < 1 or "first_report" not in stats:
        return None
    reported_s, (first, first_s) = float(stats["reported_s"]), stats["first_report"]
    parts, took_s = stats["epoch"] - first, reported_s - first_s
    part_s = took_s / parts if parts else reported_s / first
    since_report_s = time.time() - float(stats["start_ts"]) - reported_s
    return round(max(0.0, part_s * (stats["total_epochs"] - stats["epoch"]) - since_report_s), 1)


def _error(lines: Sequence[str]) -> str:
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return _LOG_HEAD.sub("", last)[:_MAX_CHARACTERS] or "The training ended early; the server's log says why."
