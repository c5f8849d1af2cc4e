"""Write and read the progress of pre-annotation, in a file that servers of the project share."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lib.annotations.atomic_write import write_atomically
from lib.annotations.json_check import finite_json

WRITE_EVERY_S = 1.0
MAX_NAMED = 100
"""Largest number of failed studies in the file; the script prints all."""

NOTHING: dict[str, Any] = {
    "running": False,
    "started": None,
    "ended": None,
    "model_version": None,
    "total": 0,
    "done": 0,
    "stored": 0,
    "failed": [],
    "n_failed": 0,
    "remaining_s": None,
    "sentence": None,
    "pid": None,
}


class Outcome(NamedTuple):
    """Result of the pre-annotation of one study.

    Attributes:
        state: `stored`; `kept`, if it was annotated or proposed meanwhile; `divided`, if a series has several images;
            or `failed`.
        reason: sentence that says why it failed.
        images: image ids of a divided series.
    """

    image_id: str
    state: str
    reason: str = ""
    images: tuple[str, ...] = ()
    quality: float = 0.0
    seconds: float = 0.0


class Progress:
    """Counts of the outcomes, written to a file.

    Attributes:
        failed: image ids and reasons.
    """

    def __init__(self, path: Path, model_version: int, total: int) -> None:
        self._path = path
        self._model_version, self.total = model_version, total
        self._started, self._start_s = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        self._written_s = 0.0
        self.counts: Counter[str] = Counter()
        self.failed: list[tuple[str, str]] = []
        self.write()

    @property
    def done(self) -> int:
        return self.counts.total()

    def add(self, outcome: Outcome) -> None:
        """Count one study; a divided series counts as its images."""
        if outcome.state == "divided":
            self.total += len(outcome.images) - 1
        else:
            self.counts[outcome.state] += 1
        if outcome.state == "failed":
            self.failed.append((outcome.image_id, outcome.reason))
        if time.monotonic() - self._written_s >= WRITE_EVERY_S:
            self.write()

    def end(self, sentence: str) -> None:
        self.write(running=False, sentence=sentence)

    def write(self, running: bool = True, sentence: str | None = None) -> None:
        self._written_s = time.monotonic()
        ran_s, done = self._written_s - self._start_s, self.done
        content = {
            "running": running,
            "started": self._started,
            "ended": None if running else datetime.now(UTC).isoformat(timespec="seconds"),
            "model_version": self._model_version,
            "total": self.total,
            "done": done,
            "stored": self.counts["stored"],
            "failed": [{"id": image_id, "reason": reason} for image_id, reason in self.failed[:MAX_NAMED]],
            "n_failed": len(self.failed),
            "remaining_s": round(ran_s / done * (self.total - done), 1) if running and done else None,
            "sentence": sentence,
            "pid": os.getpid(),
        }
        with suppress(OSError):  # a full disk is reported when masks are stored
            write_atomically(self._path, json.dumps(content).encode(), durable=False)


def read_progress(path: Path) -> dict[str, Any]:
    """Read the file of `Progress`; return `NOTHING` if it is missing or damaged."""
    try:
        content = finite_json(path.read_bytes())
        return {**NOTHING, **{name: content[name] for name in NOTHING}}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return dict(NOTHING)
