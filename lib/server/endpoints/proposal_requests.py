"""Start, follow and stop the pre-annotation of all studies by the published model."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from monailabel.interfaces.utils.app import app_instance

from lib.infers.published_model import NO_MODEL
from lib.server.endpoints.app_requests import without_folders
from lib.server.endpoints.model_requests import published_model
from lib.server.endpoints.review_only import is_review_only, refuse_if_review_only
from lib.server.endpoints.who import CurrentUser
from lib.server.http.disk_full import writing
from lib.server.http.json_input import json_object
from lib.server.http.refusals import answered_with
from lib.server.jobs.pre_annotation import PreAnnotation, RunningError
from lib.server.jobs.proposal_progress import NOTHING
from lib.server.login.user import Role, User

ORDERS = ("first", "random")


async def start_proposals(request: Request, user: CurrentUser) -> dict[str, Any]:
    """Start a pre-annotation: segment all studies without a final mask; 429 while one is running.

    Optional fields of the body: `limit`, the number of studies, and `strategy`, their order (`first` or `random`).
    """
    refuse_if_review_only()
    options = _options(json_object(await request.body(), "parameters"))
    return await run_in_threadpool(_start, options, user)


def _options(parameters: dict[str, Any]) -> list[str]:
    """Return the command-line options of the pre-annotation script.

    Raises:
        HTTPException: 422, a parameter is not valid.
    """
    limit, order = parameters.get("limit"), parameters.get("strategy", ORDERS[0])
    if limit is not None and (type(limit) is not int or limit < 1):
        raise HTTPException(422, f"The limit is {str(limit)[:80]!r}; expected a number of studies from 1.")
    if order not in ORDERS:
        raise HTTPException(422, f"The strategy is {str(order)[:80]!r}; expected one of {', '.join(ORDERS)}.")
    return ["--strategy", order, *([] if limit is None else ["--limit", str(limit)])]


def _start(options: list[str], user: User) -> dict[str, Any]:
    if published_model() is None:
        raise HTTPException(409, NO_MODEL)
    with answered_with(429, RunningError), writing("The pre-annotation", "started"):
        _pre_annotation().start(options)
    return proposals(user)


def proposals(user: CurrentUser) -> dict[str, Any]:
    """Return the progress of the latest pre-annotation: numbers of studies, done and stored, and failed studies."""
    progress = dict(NOTHING) if is_review_only() else _pre_annotation().progress()
    progress.pop("pid", None)
    failed = [{**one, "reason": _without_folders(one["reason"])} for one in progress["failed"]]
    sentence = _without_folders(progress["sentence"] or "") or None
    may_start = user.role >= Role.ADMIN and not is_review_only()
    return {**progress, "sentence": sentence, "failed": failed, "may_start": may_start}


def _without_folders(sentence: str) -> str:
    return next(without_folders([sentence]), "")


async def stop_proposals(user: CurrentUser) -> dict[str, Any]:
    """Stop the pre-annotation; its masks stay, and the next run continues. 409 if none of this server is running."""
    refuse_if_review_only()
    if not await run_in_threadpool(_pre_annotation().stop):
        raise HTTPException(409, "No pre-annotation of this server is running.")
    return await run_in_threadpool(proposals, user)


def _pre_annotation() -> PreAnnotation:
    return app_instance().pre_annotation
