"""Answer requests about the running training, and stream events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import StreamingResponse
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks import utils as async_tasks

from lib.server.endpoints.app_requests import without_folders
from lib.server.endpoints.model_requests import trainer
from lib.server.endpoints.review_only import is_review_only
from lib.server.endpoints.who import CurrentUser
from lib.server.events import Events
from lib.server.jobs.training_progress import training_progress
from lib.server.login.user import Role
from lib.trainers.curves import read_curves


def training(user: CurrentUser) -> dict[str, Any]:
    """Return the progress, curves and result of the running or latest training."""
    curves = {"loss": [], "validation": []} if is_review_only() else read_curves(trainer().models.trainings.curves)
    return {**progress(), **curves, "may_train": user.role >= Role.ADMIN and not is_review_only()}


def progress() -> dict[str, Any]:
    """Return the progress of the running or latest training, without curves and user rights."""
    if is_review_only():
        return training_progress(None, {}, [])
    tasks = async_tasks.tasks("train")
    # The last task may be one that waits for the running one.
    task = next((one for one in tasks if one["status"] == "RUNNING"), tasks[-1] if tasks else None)
    words = list(without_folders(list(task.get("details", ())))) if task is not None else []
    return training_progress(task, trainer().stats(), words)


async def events(request: Request, seconds: Annotated[float | None, Query(ge=0)] = None) -> StreamingResponse:
    """Stream server-sent events: `hello`, then changes of the `training`, the published `model` and the `studies`.

    The stream ends after `seconds`, if given, and when the login expires.
    """
    stream: Events = app_instance().events
    stream.require_room()
    return StreamingResponse(
        stream.stream(request.state.is_allowed, seconds),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},  # nginx would buffer the events
    )
