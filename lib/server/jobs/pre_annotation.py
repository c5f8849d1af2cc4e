"""Run pre-annotation in a process of its own, one at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lib.server.jobs.proposal_progress import NOTHING, read_progress
from lib.server.project import Project

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "pre_annotate.py"
STOP_TIMEOUT_S = 20.0
_MAX_CHARACTERS = 500


class RunningError(RuntimeError):
    """Error of a start while a pre-annotation of the project is running."""


class PreAnnotation:
    """Process of `scripts/pre_annotate.py`, which ends with the server, and its progress.

    Args:
        studies: studies that the server was started with.
        conf: settings that the server was started with.
        leaves_a_core: keep one core free for requests; for machines without GPUs.
    """

    def __init__(self, studies: str, conf: Mapping[str, str], project: Project, *, leaves_a_core: bool) -> None:
        self._studies, self._conf, self._project = studies, dict(conf), project
        self._leaves_a_core = leaves_a_core
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, options: Sequence[str] = ()) -> None:
        """Start a run.

        Args:
            options: further options of the script.

        Raises:
            RunningError: one runs already, started by this server or another program.
            OSError: the process cannot be started, or its log cannot be written.
        """
        command = [sys.executable, "-P", str(SCRIPT), self._studies, *options]
        command += [word for name, value in self._conf.items() for word in ("--conf", name, value)]
        if self._leaves_a_core:
            command += ["--workers", str(max(1, len(os.sched_getaffinity(0)) - 1))]
        with self._lock:
            if self._is_running():
                raise RunningError("The studies are being pre-annotated already; wait for the end, or stop it.")
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def progress(self) -> dict[str, Any]:
        """Return the progress that `lib.server.jobs.proposal_progress.Progress` writes, without the process id."""
        progress = read_progress(self._project.pre_annotation)
        own = self._process
        if own is not None and progress["pid"] != own.pid:  # it has not begun yet, or could not
            code = own.poll()
            progress = {**NOTHING, "running": code is None, "sentence": None if code is None else self._last_line()}
        elif progress["running"] and not self._is_running():
            progress |= {"running": False, "remaining_s": None}
            progress["sentence"] = "It ended early. Stored proposals are kept; start it again to continue."
        return {name: value for name, value in progress.items() if name != "pid"}

    def stop(self) -> bool:
        """Stop the run of this server and wait for its end; return whether one was running."""
        own = self._process
        if own is None or own.poll() is not None:
            return False
        own.terminate()
        try:
            own.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            own.kill()  # its workers end with it
            own.wait()
        return True

    @property
    def _log(self) -> Path:
        return self._project.logs / "pre_annotation.log"

    def _is_running(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        try:
            with FileLock(self._project.pre_annotation_lock, timeout=0):
                return False
        except Timeout:
            return True

    def _last_line(self) -> str:
        lines: list[str] = []
        with suppress(OSError):
            lines = self._log.read_text("utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last[:_MAX_CHARACTERS] or "It ended early; logs/pre_annotation.log says why."
