"""The inference endpoint of MONAI Label, with bad requests answered as such and without blocking the server."""

from __future__ import annotations

import asyncio
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, HTTPException, UploadFile
from fastapi.background import BackgroundTasks
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.endpoints.infer import ResultType, run_inference
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from lib.datastore.endpoint import json_object

_SESSION_ID = re.compile(r"[\w\-]{1,64}")

# Few threads, and always the same: each one that has run a network keeps tens of megabytes of buffers for itself, and
# FastAPI's pool has forty.
_WORKERS = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="inference")

router = APIRouter(prefix="/infer", tags=["Infer"])


@router.post("/{model}", summary="Run Inference for supported model")
async def infer(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: UploadFile = File(None),
    label: UploadFile = File(None),
    output: ResultType | None = None,
    user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)),  # noqa: B008
) -> Any:
    """As MONAI Label's own, but run in a thread: there it holds up every other request until it is done."""
    if not (image or session_id or file):
        raise HTTPException(422, "There is no image: give 'image', 'session_id' or a file.")
    if session_id and not _SESSION_ID.fullmatch(session_id):
        raise HTTPException(422, f"The session is {session_id!r}; expected the id that the server gave.")
    if output == ResultType.dicom_seg and not isinstance(app_instance().datastore(), DICOMWebDatastore):
        raise HTTPException(422, "DICOM SEG needs studies from a DICOMweb archive; these are files: ask for an image.")
    # What the address of the request says is not to be overruled from inside it.
    parameters = {k: v for k, v in json_object(params, "params").items() if k not in ("model", "image", "session")}
    if settings.MONAI_LABEL_AUTH_ENABLE:
        parameters["client_id"] = user.username
    request = (background_tasks, model, image, session_id, json.dumps(parameters), file, label, output)
    return await asyncio.get_running_loop().run_in_executor(_WORKERS, run_inference, *request)


def replace_inference_endpoint(application: FastAPI) -> None:
    """Puts this endpoint before MONAI Label's."""
    application.router.routes[:0] = router.routes
