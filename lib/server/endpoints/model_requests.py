"""List the versions of the model, and publish a kept one again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import HTTPException, Request
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from monailabel.interfaces.utils.app import app_instance

from lib.infers.published_model import PublishedModel
from lib.networks.checkpoint import CheckpointError
from lib.server.endpoints.review_only import is_review_only, refuse_if_review_only
from lib.server.http.disk_full import writing
from lib.server.http.guard import set_details
from lib.server.http.refusals import answered_with
from lib.trainers.train_task import InExtremISTrainTask
from lib.training.model_folder import NAME
from lib.training.record import TrainingRecord
from lib.training.version_list import KeptVersion, NoVersionError, kept_versions, roll_back


def trainer() -> InExtremISTrainTask:
    """Return the trainer of the running app, which a review-only server lacks."""
    return app_instance().trainers[NAME]


def published_model() -> dict[str, Any] | None:
    """Return the number and publication time of the published version; None if there is none."""
    if is_review_only():
        return None
    published: PublishedModel = app_instance().workflow.published
    model = published.current()
    return None if model is None else {"version": model.version, "published": _time_written(published.path)}


def list_models() -> dict[str, Any]:
    """Return the published version of the model and all kept versions, the newest first."""
    if is_review_only():
        return {"published": None, "versions": []}
    model, versions = app_instance().workflow.published.current(), trainer().models.versions
    published = None if model is None else model.version
    record = TrainingRecord.load(trainer().models.trainings.record)
    kept = kept_versions(versions, record, published)
    return {
        "published": published,
        "versions": [_shown(of, versions.path(of.number)) for of in reversed(kept)],
    }


def _shown(version: KeptVersion, path: Path) -> dict[str, Any]:
    run = version.run
    return {
        "version": version.number,
        "created": _time_written(path) if run is None else run.ended,
        "dice": None if run is None else run.score,
        "scans": None if run is None else run.scans,
        "sentence": version.sentence,
        "is_published": version.is_published,
    }


async def publish_version(version: Annotated[int, PathParameter(ge=1, le=10**9)], request: Request) -> dict[str, Any]:
    """Publish a kept version of the model again; later trainings start from it.

    A training that is running keeps its result as a version, but does not publish it.
    """
    refuse_if_review_only()
    set_details(request, version=version)
    try:
        with answered_with(404, NoVersionError), writing("The version", "published"):
            await run_in_threadpool(roll_back, trainer().models.versions, version, trainer().labels)
    except CheckpointError as error:
        raise HTTPException(409, f"{error} What was published stays.") from error
    return await run_in_threadpool(list_models)


def _time_written(path: Path) -> str | None:
    """Return when a file was last written, in ISO 8601; None if it does not exist."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except OSError:
        return None
