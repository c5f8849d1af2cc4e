"""Store the masks that annotators submit, and answer requests about stored masks and clicks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import File, Form, HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from monailabel.interfaces.utils.app import app_instance

from lib.annotations.proposal import PROPOSAL_TAG
from lib.geometry.volume_files import EXTENSIONS
from lib.server.endpoints.image_requests import image_file, studies
from lib.server.endpoints.review_only import is_review_only
from lib.server.endpoints.who import CurrentUser, name_of
from lib.server.http.json_input import check_text, json_object
from lib.server.http.pools import wait_for_archive
from lib.server.http.uploads import stored_upload
from lib.server.login.user import Role, User, require_role
from lib.server.masks.annotation_set import AnnotationSet
from lib.server.masks.mask_upload import store_mask
from lib.server.project import CLICK_TAG, FINAL_TAG
from lib.server.studies.archive_studies import ArchiveStudies
from lib.server.studies.datastore import Studies

ARCHIVE_TIMEOUT_S = 5.0
_TASKS: set[asyncio.Future[Any]] = set()  # the event loop holds only weak references to tasks


async def save_label(
    request: Request,
    user: CurrentUser,
    image: str,
    label: Annotated[UploadFile, File()],
    params: Annotated[str, Form()] = "{}",
    tag: str = FINAL_TAG,
) -> dict[str, Any]:
    """Store a mask of an image; it is written to disk before the answer is sent."""
    information, datastore = json_object(params, "params"), studies()
    tag = tag or FINAL_TAG
    if tag == PROPOSAL_TAG:
        raise HTTPException(422, f"The tag {PROPOSAL_TAG!r} is kept for masks that the network makes; use 'final'.")
    if is_review_only():  # a reviewer's own reading is the third one
        require_role(user, Role.REVIEWER)
    datastore.masks(tag)  # refuses an invalid tag
    await run_in_threadpool(datastore.require_project)
    path = await image_file(image)
    upload = await run_in_threadpool(stored_upload, label)
    try:
        annotator = name_of(request, information)
        await run_in_threadpool(_store, image, path, upload, tag, information, annotator)
    finally:
        upload.unlink(missing_ok=True)
    if tag == FINAL_TAG:
        await run_in_threadpool(datastore.record_work, image, annotator)
    answer: dict[str, Any] = {"image": image, "label": image}
    return {**answer, **(await publish_final_mask(datastore, image) if tag == FINAL_TAG else {})}


def _store(image: str, path: Path, upload: Path, tag: str, information: dict[str, Any], annotator: str) -> None:
    with studies().readings.changing(image, annotator) as annotations:
        store_mask(annotations, image, path, upload, tag, information, annotator)


async def publish_final_mask(datastore: Studies, image: str) -> dict[str, str]:
    """Make a stored final mask available to the training and the archive.

    The mask of an undecided reading is only compared with the other readings of its study, in the background.

    Returns:
        Fields for the answer: a `warning` if the archive does not have the mask.
    """
    if datastore.readings.people > 1 and not await run_in_threadpool(datastore.decided, [image]):
        _keep(asyncio.ensure_future(run_in_threadpool(app_instance().review.agreements.measure, image)))
        return {}
    datastore.on_annotation(f"{image}, final mask")
    if isinstance(datastore, ArchiveStudies) and (warning := await _shared(datastore, image)):
        return {"warning": warning}
    return {}


async def _shared(datastore: ArchiveStudies, image: str) -> str | None:
    """Send the final mask to the archive; return the reason if it does not arrive within `ARCHIVE_TIMEOUT_S`."""
    task = asyncio.ensure_future(wait_for_archive(datastore.share_mask, image))
    done, _ = await asyncio.wait({task}, timeout=ARCHIVE_TIMEOUT_S)
    if done:
        return task.result()
    _keep(task)
    return "The mask is stored on the server; the archive has not answered yet."


def _keep(task: asyncio.Future[Any]) -> None:
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


def download_label(user: CurrentUser, label: str, tag: str) -> Response:
    """Download a mask of an image, with the label values of the app."""
    check_text(label, "label")
    if tag == CLICK_TAG:
        raise HTTPException(404, "Clicks have no mask of their own; ask the model extreme_points for one.")
    path = _seen_by(user, label, tag).get_label_uri(label, tag)
    extension = next(extension for extension in EXTENSIONS if path.endswith(extension))
    return FileResponse(path, media_type="application/octet-stream", filename=f"{label}{extension}")


def check_label(user: CurrentUser, tag: str, image: str | None = None, label: str | None = None) -> Response:
    """Tell whether an image has an annotation with a tag; 404 if not."""
    name = label or image or ""
    _seen_by(user, name, tag).require_label(name, tag)
    return Response()


def _seen_by(user: User, image: str, tag: str) -> AnnotationSet:
    if tag == PROPOSAL_TAG:  # made by the network, so part of no reading
        return studies()
    return studies().readings.seen_by(user.name, image)


def label_info(user: CurrentUser, label: str, tag: str) -> dict[str, Any]:
    """Return the annotator, time and labels of an annotation."""
    check_text(label, "label")
    return _seen_by(user, label, tag).get_label_info(label, tag)


def remove_label(id: str, tag: str) -> dict[str, Any]:
    """Move an annotation to `removed/`; `scripts/restore.sh` restores it."""
    check_text(id, "id")
    studies().remove_label(id, tag)
    return {}
