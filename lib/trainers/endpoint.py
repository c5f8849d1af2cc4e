"""The training endpoint of MONAI Label, with what cannot be trained refused before a process is started for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from monailabel.config import settings
from monailabel.endpoints.train import run_model
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.utils import tasks

from lib.trainers.annotated_scans import TrainingError
from lib.trainers.process_end import report_end_in_background

router = APIRouter(prefix="/train", tags=["Train"])
_ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))


@router.post("/", summary="Run all training tasks")
def train_all(params: dict[str, Any] | None = None, run_sync: bool = False, user: User = _ADMIN) -> dict[str, Any]:
    """What "Update Model" in OHIF sends: parameters by trainer, or none."""
    started = {}
    for model in app_instance().trainers:
        of_model = (params or {}).get(model) or {}
        if not isinstance(of_model, dict):
            raise HTTPException(422, f"The parameters of {model!r} are {of_model!r}; expected a JSON object.")
        started[model] = {"result": start_training(model, of_model, run_sync, enqueue=True), "detail": None}
    return started


@router.post("/{model}", summary="Run the training task of one model")
def train_model(
    model: str,
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
    enqueue: bool = False,
    user: User = _ADMIN,
) -> dict[str, Any]:
    """As MONAI Label's own; 429 while a training runs, unless it may wait its turn (`enqueue`)."""
    return start_training(model, params or {}, run_sync, enqueue)


def start_training(
    model: str, params: Mapping[str, Any], run_sync: bool = False, enqueue: bool = False
) -> dict[str, Any]:
    """The task, or the one that is waiting already and will see all there is.

    Raises:
        HTTPException: 404, no such trainer; 409, nothing to learn from; 422, parameters; 429, one runs.
    """
    app = app_instance()
    if model not in app.trainers:
        raise HTTPException(404, f"There is no trainer {model!r}; this app has {', '.join(app.trainers)}.")
    if run_sync:
        raise HTTPException(422, "run_sync is set; trainings run in the background only, so leave it out.")
    try:
        checked = app.trainers[model].checked_parameters(params)
    except TrainingError as error:
        raise HTTPException(422, str(error)) from error
    if not app.datastore().get_labeled_images():
        raise HTTPException(409, "There is nothing to learn from: no study has extreme points or a final mask yet.")
    # A training sees every annotation there is when it begins, so a second one in the queue would learn nothing new.
    waiting = [task for task in tasks("train") if task["status"] == "SUBMITTED"]
    if waiting and enqueue:
        return waiting[0]
    task = run_model(model, checked, run_sync=False, enqueue=enqueue)
    report_end_in_background(task)
    app.auto_train.began()
    return task


def replace_training_endpoint(application: FastAPI) -> None:
    """Puts this endpoint before MONAI Label's."""
    application.router.routes[:0] = router.routes
