"""Log why a training process was killed; MONAI Label logs its return code only."""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import Any

from monailabel.utils.async_tasks.utils import processes

logger = logging.getLogger(__name__)

POLL_S = 0.5


def report_end_in_background(task: dict[str, Any]) -> None:
    """Says in the log, and at the end of the task's own, when its process is killed by a signal.

    Args:
        task: as MONAI Label made it; it may still wait for its turn.
    """
    threading.Thread(target=_report_end, args=(task,), name="training-end", daemon=True).start()


def _report_end(task: dict[str, Any]) -> None:
    while (process := processes("train").get(task["id"])) is None:
        if "end_ts" in task:
            return
        time.sleep(POLL_S)
    code = process.wait()
    time.sleep(POLL_S)  # MONAI Label kills first and then writes down that it was asked to
    if code < 0 and task["status"] != "STOPPED":
        sentence = end_by_signal(-code)
        logger.error(sentence)
        task["details"].append(sentence)


def end_by_signal(number: int, process: str = "its process") -> str:
    """The sentence for a training of which a process was killed by a signal."""
    end = signal.Signals(number)
    cause = ", perhaps for lack of memory" if end == signal.SIGKILL else ""
    return (
        f"The training ended before its time: {process} was killed by signal {end.value} ({end.name}){cause}. "
        "The published model stays, and the next training goes on after the last epoch of this one."
    )
