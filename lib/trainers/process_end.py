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
    """Report in the log, and in that of the task, if the process of a task is killed by a signal.

    Args:
        task: made by MONAI Label; its process need not have started.
    """
    threading.Thread(target=_report_end, args=(task,), name="training-end", daemon=True).start()


def _report_end(task: dict[str, Any]) -> None:
    while (process := processes("train").get(task["id"])) is None:
        if "end_ts" in task:
            return
        time.sleep(POLL_S)
    code = process.wait()
    time.sleep(POLL_S)  # MONAI Label sets the status "STOPPED" after it has killed the process
    if code < 0 and task["status"] != "STOPPED":
        sentence = end_by_signal(-code)
        logger.error(sentence)
        task["details"].append(sentence)


def end_by_signal(number: int, process: str = "its process") -> str:
    """Describe in a sentence that a process of a training was killed by a signal."""
    end = signal.Signals(number)
    cause = ", perhaps for lack of memory" if end == signal.SIGKILL else ""
    return (
        f"The training ended before its time: {process} was killed by signal {end.value} ({end.name}){cause}. "
        "The published model stays, and the next training continues after the last epoch of this one."
    )
