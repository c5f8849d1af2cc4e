"""Start and stop trainings; refuse those that cannot run before a process is started."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks import utils as async_tasks
from monailabel.utils.async_tasks.task import AsyncTask
from psutil import NoSuchProcess

from lib.server.http.refusals import answered_with
from lib.trainers.process_end import report_end_in_background
from lib.training.loop import TrainingError

logger = logging.getLogger(__name__)

START_S = 30
"""How long a training's process may take to exist (s)."""


def start_training(model: str, params: Mapping[str, Any], enqueue: bool = False) -> dict[str, Any]:
    """The task, or the one that is waiting already and will see all there is.

    Raises:
        HTTPException: 404, no such trainer; 409, nothing to learn from; 422, parameters; 429, one runs.
    """
    app = app_instance()
    if model not in app.trainers:
        raise HTTPException(404, f"There is no trainer {model[:80]!r}; this app has {', '.join(app.trainers)}.")
    with answered_with(422, TrainingError):
        checked = app.trainers[model].checked_parameters(params)
    if not app.datastore().has_answers():
        raise HTTPException(409, "There is nothing to learn from: no study has extreme points or a final mask yet.")
    # A training sees every annotation there is when it begins, so a second one in the queue would learn nothing new.
    waiting = [task for task in async_tasks.tasks("train") if task["status"] == "SUBMITTED"]
    if waiting and enqueue:
        return waiting[0]
    task = None
    if not waiting:
        task, _ = AsyncTask.run(
            "train", request={"model": model}, params={"gpus": app.settings.gpus, **checked}, enqueue=enqueue
        )
    if task is None:
        raise HTTPException(429, "A training runs already; wait for its end, stop it, or send enqueue=true.")
    report_end_in_background(task)
    app.workflow.auto_train.began()
    return task


def stop_training() -> dict[str, Any] | None:
    """Ends the training that runs, or that is just starting: one without a process yet is waited for.

    Returns:
        The task that was ended; None where there is none.
    """
    end = time.monotonic() + START_S
    while _is_starting() and time.monotonic() < end:
        time.sleep(0.05)
    try:
        task: dict[str, Any] | None = AsyncTask.stop("train")
    except (NoSuchProcess, StopIteration, IndexError):  # it ended by itself just now
        return None
    return task


def _is_starting() -> bool:
    """Does a training wait for its process, and not for the end of another training?"""
    states = {task["status"] for task in async_tasks.tasks("train")}
    return "SUBMITTED" in states and "RUNNING" not in states


def end_in_error_what_cannot_start() -> None:
    """Sets a training whose process cannot be started to ERROR; MONAI Label would keep it SUBMITTED."""
    async_tasks._task_func = _guarded(async_tasks._task_func)


def _guarded(run: Callable[..., None]) -> Callable[..., None]:
    @wraps(run)
    def guarded(task: dict[str, Any], method: str, callback: Callable[..., None] | None = None) -> None:
        try:
            run(task, method, callback)
        except Exception:  # whatever it is, MONAI Label would keep the training waiting
            logger.exception("The training could not be started.")
            async_tasks.background_processes.get(method, {}).pop(task["id"], None)
            task["status"] = "ERROR"
            task["end_ts"] = datetime.today().strftime("%Y-%m-%d %H:%M:%S")
            task.setdefault("details", []).append("The training could not be started; the server's log says why.")

    return guarded
