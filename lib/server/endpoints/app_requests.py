"""Answer requests about the app, the next study, and trainings."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask

from lib.activelearning.strategies import REVIEW, require_strategy
from lib.server.endpoints.image_requests import studies
from lib.server.endpoints.review_only import refuse_if_review_only
from lib.server.endpoints.who import CurrentUser, name_of
from lib.server.http.guard import record_nothing
from lib.server.http.json_input import json_object
from lib.server.http.pools import wait_for_archive
from lib.server.jobs import training_process as training
from lib.server.login.user import Role, require_role

_FOLDERS = re.compile(r"/(?:[^/\s'\":,]+/)+")


async def health() -> dict[str, str]:
    """Answer that the server is up."""
    return {"status": "ok"}


def app_info() -> dict[str, Any]:
    """Return the labels, models and strategies, and statistics of the training and of the studies."""
    return app_instance().info()


async def next_sample(strategy: str, request: Request, user: CurrentUser) -> dict[str, Any]:
    """Return the next study to annotate or to review; an empty object if none is left."""
    parameters = json_object(await request.body(), "parameters")
    require_strategy(strategy, app_instance().strategies)
    if studies().readings.people > 1:  # a lease keeps the study from others
        require_role(user, Role.REVIEWER if strategy == REVIEW else Role.ANNOTATOR)
    return await wait_for_archive(_next_sample, strategy, name_of(request, parameters))


def _next_sample(strategy: str, client_id: str) -> dict[str, Any]:
    sample = app_instance().next_sample({"strategy": strategy, "client_id": client_id})
    return {} if not sample else {**studies().get_image_info(sample["id"]), "id": sample["id"]}


async def train_all(request: Request) -> dict[str, Any]:
    """Start a training of each model, as OHIF's "Update Model" does; the body may hold parameters by model."""
    parameters = json_object(await request.body(), "parameters")
    refuse_if_review_only()
    started = {}
    for model in app_instance().trainers:
        options = parameters.get(model) or {}
        if not isinstance(options, dict):
            raise HTTPException(422, f"The parameters of {model!r} are {str(options)[:80]}; expected a JSON object.")
        task = await run_in_threadpool(training.start_training, model, options, True)
        started[model] = {"result": _shown(task), "detail": None}
    return started


async def train_model(model: str, request: Request, run_sync: bool = False, enqueue: bool = False) -> dict[str, Any]:
    """Start a training; 429 while another one runs, unless `enqueue` is set."""
    refuse_if_review_only()
    if run_sync:
        raise HTTPException(422, "run_sync is set; trainings run in the background only, so leave it out.")
    parameters = json_object(await request.body(), "parameters")
    return _shown(await run_in_threadpool(training.start_training, model, parameters, enqueue))


def training_status(all: bool = False, check_if_running: bool = False) -> Any:
    """Return the latest training, or all of them; 404 if there is none."""
    found, detail = AsyncTask.status("train", all, check_if_running)
    if found is None:
        raise HTTPException(404, detail)
    return [_shown(task) for task in found] if isinstance(found, list) else _shown(found)


def stop_training(request: Request) -> Any:
    """Stop the running training and return its state; null if none is running.

    OHIF offers to stop even a finished training, and offers a new training only after this request succeeds.
    """
    task = training.stop_training()
    if task is None:
        record_nothing(request)
        return None
    return _shown(task)


def _shown(task: dict[str, Any]) -> dict[str, Any]:
    return {**task, "details": list(without_folders(list(task.get("details", []))))}


def without_folders(lines: list[str]) -> Iterator[str]:
    """Yield the last log lines of a training without tracebacks and local folders."""
    in_traceback = False
    for line in lines:
        if line.startswith("Traceback (most recent call last)"):
            in_traceback = True
        elif not (in_traceback and line.startswith((" ", "\t"))):
            in_traceback = False
            for folder in _local_folders():
                line = line.replace(folder, "")
            yield _FOLDERS.sub("", line)


def _local_folders() -> list[str]:
    """Return the folders of the server and its project, the longest path first."""
    folders = {
        str(studies().project.folder),
        str(studies().image_folder),
        sys.prefix,
        tempfile.gettempdir(),
        str(Path.home()),
        str(Path.cwd()),
    }
    return sorted((folder for folder in folders if len(folder) > 1), key=len, reverse=True)
