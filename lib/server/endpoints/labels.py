"""Requests about masks that annotators submit, and about clicks."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import File, Form, HTTPException, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response

from lib.server.archive_studies import ArchiveStudies
from lib.server.endpoints.images import image_file, studies
from lib.server.endpoints.who import CurrentUser, name_of
from lib.server.json_input import check_text, json_object
from lib.server.mask_upload import store_mask
from lib.server.pools import wait_for_archive
from lib.server.project import CLICK_TAG, FINAL_TAG
from lib.server.uploads import stored_upload

SHARE_PATIENCE_S = 5.0
_SHARING: set[asyncio.Future[str | None]] = set()  # the event loop itself keeps no task alive


async def save_label(
    user: CurrentUser,
    image: str,
    label: Annotated[UploadFile, File()],
    params: Annotated[str, Form()] = "{}",
    tag: str = FINAL_TAG,
) -> dict[str, Any]:
    """Stores a mask of an image. It is on disk before the answer leaves."""
    information, datastore = json_object(params, "params"), studies()
    tag = tag or FINAL_TAG
    datastore.masks(tag)  # refuses what is no tag
    await run_in_threadpool(datastore.require_project)
    path = await image_file(image)
    upload = await run_in_threadpool(stored_upload, label)
    try:
        annotator = name_of(user, information)
        await run_in_threadpool(store_mask, datastore, image, path, upload, tag, information, annotator)
    finally:
        upload.unlink(missing_ok=True)
    answer: dict[str, Any] = {"image": image, "label": image}
    if tag == FINAL_TAG:
        datastore.on_annotation(f"{image}, final mask")
        if isinstance(datastore, ArchiveStudies) and (warning := await _shared(datastore, image)):
            answer["warning"] = warning
    return answer


async def _shared(datastore: ArchiveStudies, image: str) -> str | None:
    """Why a mask is not in the archive, or not yet; the annotator does not wait for an archive that hangs."""
    task = asyncio.ensure_future(wait_for_archive(datastore.share_mask, image))
    done, _ = await asyncio.wait({task}, timeout=SHARE_PATIENCE_S)
    if done:
        return task.result()
    _SHARING.add(task)
    task.add_done_callback(_SHARING.discard)
    return "The mask is stored on the server; the archive has not answered yet."


def download_label(label: str, tag: str) -> Response:
    """The mask of an image, with the app's values."""
    check_text(label, "label")
    if tag == CLICK_TAG:
        raise HTTPException(404, "Clicks have no mask of their own; ask the model extreme_points for one.")
    path = studies().get_label_uri(label, tag)
    return FileResponse(path, media_type="application/octet-stream", filename=f"{label}{_extension(path)}")


def check_label(tag: str, image: str | None = None, label: str | None = None) -> Response:
    """Whether an image has an annotation with a tag."""
    studies().require_label(label or image or "", tag)
    return Response()


def _extension(path: str) -> str:
    return next(extension for extension in (".nii.gz", ".nii", ".nrrd") if path.endswith(extension))


def label_info(label: str, tag: str) -> dict[str, Any]:
    """Who made an annotation, when, and of which labels."""
    check_text(label, "label")
    return studies().get_label_info(label, tag)


def remove_label(id: str, tag: str) -> dict[str, Any]:
    """Moves an annotation into `removed/` (`scripts/restore.sh` brings it back)."""
    check_text(id, "id")
    studies().remove_label(id, tag)
    return {}
