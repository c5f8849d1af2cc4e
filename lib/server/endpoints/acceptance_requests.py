"""Answer requests that accept the mask given last, or take the acceptance back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from lib.server.endpoints.image_requests import image_file, studies
from lib.server.endpoints.label_requests import told_of_final_mask
from lib.server.endpoints.review_only import refuse_where_review_only
from lib.server.endpoints.who import name_of
from lib.server.http.guard import set_details
from lib.server.http.json_input import check_text, json_object
from lib.server.masks.acceptance import accept, take_back
from lib.server.studies.archive_studies import ArchiveStudies


async def accept_masks(image: str, request: Request) -> dict[str, Any]:
    """Makes the mask that the annotator was given last for the clicks of an image its final mask.

    The body may name `labels`, a list (default: all that are clicked), and the `client_id` that the clicks came with.
    The answer holds what is recorded of each accepted label: `origin` (`accepted` as the app made it from six clicks,
    or `corrected` by further ones), `annotator`, `created`, `model_version` and `model_sha256`, the number of `clicks`,
    and the `seconds` since the annotator first clicked it. 409 where no mask of these clicks was given to this
    annotator.
    """
    parameters, datastore = json_object(await request.body(), "parameters"), studies()
    refuse_where_review_only()
    await run_in_threadpool(datastore.require_project)
    path = await image_file(image)
    annotator = name_of(request, parameters)
    answer, is_new = await run_in_threadpool(_accept, image, path, parameters, annotator)
    await run_in_threadpool(datastore.worked_on, image, annotator)
    set_details(request, labels=list(answer["labels"]))
    return {**answer, **(await told_of_final_mask(datastore, image) if is_new else {})}


async def take_acceptance_back(image: str, request: Request, client_id: str = "") -> dict[str, Any]:
    """Takes back what the annotator accepted last: the mask before is final again, if there was one.

    `client_id` is the one that accepted. The answer says under `final_mask` whether there is one now.
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
