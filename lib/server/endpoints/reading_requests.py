"""List readings for reviewers, and store their decisions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from monailabel.interfaces.utils.app import app_instance

from lib.annotations.mask_file import MaskRecord, encoded_mask
from lib.annotations.names import label_values
from lib.server.endpoints.image_requests import studies
from lib.server.endpoints.label_requests import told_of_final_mask
from lib.server.endpoints.who import CurrentUser, current_user
from lib.server.http.guard import set_details
from lib.server.http.json_input import check_text, json_object
from lib.server.login.user import Role
from lib.server.review.decisions import Choice, Review
from lib.server.studies.archive_studies import ArchiveStudies


def review() -> Review:
    """That of the running app."""
    of_app: Review = app_instance().review
    return of_app


def without_readings(store: Callable[[Request, str], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """The endpoint that stores segmentations in the archive, where other readers would see those of annotators."""

    async def endpoint(request: Request, path: str) -> Response:
        if current_user(request).role < Role.REVIEWER:
            raise HTTPException(
                409,
                "Readers do not see each other's work, and would see a segmentation in the archive; submit the mask to "
                "this server instead.",
            )
        return await store(request, path)

    endpoint.__doc__ = store.__doc__
    return endpoint


def list_readings(user: CurrentUser) -> list[dict[str, Any]]:
    """The studies that somebody has read, those to decide first, and of these those whose readers disagree most."""
    return review().listing(str(user.name))


def download_reading(user: CurrentUser, image: str, reader: str) -> Response:
    """The mask of one reader, as NIfTI with the app's values."""
    mask = review().reading(image, reader, str(user.name))
    content = encoded_mask(mask, MaskRecord(label_values(studies().labels), reader))
    headers = {"content-disposition": 'attachment; filename="reading.nii.gz"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


async def decide(user: CurrentUser, image: str, request: Request) -> dict[str, Any]:
    """Makes one reading of a study its final mask and clicks.

    The body names the `choice`, a reader or "third" for what the reviewer has read themselves, and the `version` of the
    readings that `GET /readings/` told. 409 where they have changed since.
    """
    check_text(image, "image")
    body, datastore = json_object(await request.body(), "decision"), studies()
    choice, version = body.get("choice"), body.get("version")
    if not isinstance(choice, str) or not isinstance(version, str):
        raise HTTPException(
            422, "The decision needs a 'choice', a reader or \"third\", and the 'version' that GET /readings/ tells."
        )
    await run_in_threadpool(datastore.require_project)
    decision = await run_in_threadpool(review().decide, image, Choice(choice, version), str(user.name))
    set_details(request, reader=decision["reader"], readers=decision["readers"])
    return {"image": image, "decision": decision, **await told_of_final_mask(datastore, image)}


async def take_decision_back(image: str, request: Request) -> dict[str, Any]:
    """Takes a decision back: the readings can be changed and decided again."""
    check_text(image, "image")
    datastore = studies()
    await run_in_threadpool(datastore.require_project)
    decision = await run_in_threadpool(review().take_back, image)
    set_details(request, reader=decision["reader"], decided_by=decision.get("by"))
    answer: dict[str, Any] = {"image": image, "taken_back": decision}
    if isinstance(datastore, ArchiveStudies):
        answer["warning"] = "The archive keeps the segmentation that was decided for; delete it there."
    return answer
