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
from lib.server.endpoints.label_requests import publish_final_mask
from lib.server.endpoints.who import CurrentUser, current_user
from lib.server.http.guard import set_details
from lib.server.http.json_input import check_text, json_object
from lib.server.login.user import Role
from lib.server.review.decisions import Choice, Review
from lib.server.studies.archive_studies import ArchiveStudies


def review() -> Review:
    """Return the review of the running app."""
    return app_instance().review


def without_readings(store: Callable[[Request, str], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """Wrap the endpoint that stores segmentations in the archive: refuse annotators, whose work others would see."""

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
    """List all studies with readings: undecided ones first, ordered by the disagreement of their readers."""
    return review().listing(str(user.name))


def download_reading(user: CurrentUser, image: str, reader: str) -> Response:
    """Download the mask of one reader as NIfTI, with the label values of the app."""
    mask = review().reading(image, reader, str(user.name))
    content = encoded_mask(mask, MaskRecord(label_values(studies().labels), reader))
    headers = {"content-disposition": 'attachment; filename="reading.nii.gz"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


async def decide(user: CurrentUser, image: str, request: Request) -> dict[str, Any]:
    """Choose one reading of a study as its final mask and clicks.

    The body gives the `choice`, a reader or "third" for the reviewer's own reading, and the `version` of the readings
    from `GET /readings/`. The status is 409 if the readings have changed since.
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
    return {"image": image, "decision": decision, **await publish_final_mask(datastore, image)}


async def take_decision_back(image: str, request: Request) -> dict[str, Any]:
    """Undo a decision: its readings can be changed and decided on again."""
    check_text(image, "image")
    datastore = studies()
    await run_in_threadpool(datastore.require_project)
    decision = await run_in_threadpool(review().take_back, image)
    set_details(request, reader=decision["reader"], decided_by=decision.get("by"))
    answer: dict[str, Any] = {"image": image, "taken_back": decision}
    if isinstance(datastore, ArchiveStudies):
        answer["warning"] = "The archive keeps the segmentation that was decided for; delete it there."
    return answer
