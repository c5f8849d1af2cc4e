"""Accept the latest mask of an annotator, or undo the acceptance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from lib.server.endpoints.image_requests import image_file, studies
from lib.server.endpoints.label_requests import publish_final_mask
from lib.server.endpoints.review_only import refuse_if_review_only
from lib.server.endpoints.who import name_of
from lib.server.http.guard import set_details
from lib.server.http.json_input import check_text, json_object
from lib.server.masks.acceptance import accept, take_back
from lib.server.studies.archive_studies import ArchiveStudies


async def accept_masks(image: str, request: Request) -> dict[str, Any]:
    """Make the latest mask that the annotator received for the clicks of an image its final mask.

    Optional fields of the body: `labels`, a list (default: all clicked labels), and the `client_id` sent with the
    clicks. The answer gives for each accepted label its `origin` (`accepted`: made from six clicks, or `corrected`:
    with further clicks), `annotator`, `created`, `model_version`, `model_sha256`, the number of `clicks`, and the
    `seconds` since the annotator's first click. The status is 409 if this annotator has received no mask of these
    clicks.
    """
    parameters, datastore = json_object(await request.body(), "parameters"), studies()
    refuse_if_review_only()
    await run_in_threadpool(datastore.require_project)
    path = await image_file(image)
    annotator = name_of(request, parameters)
    answer, is_new = await run_in_threadpool(_accept, image, path, parameters, annotator)
    await run_in_threadpool(datastore.record_work, image, annotator)
    set_details(request, labels=list(answer["labels"]))
    return {**answer, **(await publish_final_mask(datastore, image) if is_new else {})}


async def take_acceptance_back(image: str, request: Request, client_id: str = "") -> dict[str, Any]:
    """Undo the annotator's latest acceptance and restore the previous final mask, if there was one.

    `client_id` is the one that accepted. `final_mask` in the answer tells whether the image has a final mask now.
    """
    check_text(image, "image")
    datastore = studies()
    await run_in_threadpool(datastore.require_project)
    annotator = name_of(request, {"client_id": client_id})
    answer = await run_in_threadpool(_take_back, image, annotator)
    if isinstance(datastore, ArchiveStudies) and datastore.readings.people == 1:
        answer["warning"] = "The archive keeps the segmentation that was accepted; delete it there."
    return answer


def _accept(image: str, path: Path, parameters: dict[str, Any], annotator: str) -> tuple[dict[str, Any], bool]:
    with studies().readings.changing(image, annotator) as annotations:
        return accept(annotations, image, path, parameters, annotator)


def _take_back(image: str, annotator: str) -> dict[str, Any]:
    with studies().readings.changing(image, annotator) as annotations:
        return take_back(annotations, image, annotator)
