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
"""Longest time that a training's process may take to start."""


def start_training(model: str, params: Mapping[str, Any], enqueue: bool = False) -> dict[str, Any]:
    """Start a training and return its task, or the waiting task, which will use all annotations.

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
    # A training uses all annotations that exist when it begins, so a second one in the queue would be useless.
    waiting = [task for task in async_tasks.tasks("train") if task["status"] == "SUBMITTED"]
    if waiting and enqueue:
        return waiting[0]
    task = None
    if not waiting:
        task, _ = AsyncTask.run(
            "train", request={"model": model}, params={"gpus": app.settings.gpus, **checked}, enqueue=enqueue
        )
    if task is None:
        raise HTTPException(429, "A training is running already; wait for its end, stop it, or send enqueue=true.")
    report_end_in_background(task)
    app.workflow.auto_train.began()
    return task


def stop_training() -> dict[str, Any] | None:
    """Stop the running training; if it is starting, wait for its process first.

    Returns:
        The stopped task; None if no training runs.
    """
    end = time.monotonic() + START_S
    while _is_starting() and time.monotonic() < end:
        time.sleep(0.05)
    try:
        task: dict[str, Any] | None = AsyncTask.stop("train")
    except (NoSuchProcess, StopIteration, IndexError):  # it has just ended
        return None
    return task


def _is_starting() -> bool:
    """Tell whether a training waits for its process, and not for the end of another training."""
    states = {task["status"] for task in async_tasks.tasks("train")}
    return "SUBMITTED" in states and "RUNNING" not in states


def fail_tasks_that_cannot_start() -> None:
    """Set trainings whose process cannot be started to ERROR; MONAI Label would keep them SUBMITTED."""
    async_tasks._task_func = _guarded(async_tasks._task_func)


def _guarded(run: Callable[..., None]) -> Callable[..., None]:
    @wraps(run)
    def guarded(task: dict[str, Any], method: str, callback: Callable[..., None] | None = None) -> None:
        try:
            run(task, method, callback)
        except Exception:  # MONAI Label would keep the training waiting
            logger.exception("The training could not be started.")
            async_tasks.background_processes.get(method, {}).pop(task["id"], None)
            task["status"] = "ERROR"
            task["end_ts"] = datetime.today().strftime("%Y-%m-%d %H:%M:%S")
            task.setdefault("details", []).append("The training could not be started; the server's log says why.")

    return guarded
