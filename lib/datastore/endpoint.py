"""The writing half of MONAI Label's datastore endpoint, and how all of its endpoints answer what cannot be done."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.endpoints import datastore as monai_label
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException

router = APIRouter(prefix="/datastore", tags=["Datastore"])

_ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
# MONAI Label takes everything behind the first dot as the type of a file.
_VOLUME = re.compile(r"[^\0]*\.(nii|nii\.gz|nrrd)", re.DOTALL)


@router.put("/", include_in_schema=False)
@router.put("/image", summary="Upload new Image")
def add_image(
    background_tasks: BackgroundTasks,
    image: str | None = None,
    params: str = Form("{}"),
    file: UploadFile = File(...),  # noqa: B008
    user: User = _ANNOTATOR,
) -> Any:
    """As MONAI Label's own, for volumes."""
    json_object(params, "params")
    _require_volume(file)
    return monai_label.add_image(background_tasks, image, params, file, user.username)


@router.put("/label", summary="Save Finished Label")
def save_label(
    background_tasks: BackgroundTasks,
    image: str,
    params: str = Form("{}"),
    tag: str = DefaultLabelTag.FINAL.value,
    label: UploadFile = File(...),  # noqa: B008
    user: User = _ANNOTATOR,
) -> Any:
    """As MONAI Label's own, for volumes."""
    json_object(params, "params")
    _require_volume(label)
    return monai_label.save_label(background_tasks, image, params, tag, label, user.username)


@router.put("/image/info", summary="Update Image Info")
def update_image_info(image: str, info: str = Form("{}"), user: User = _ANNOTATOR) -> Any:
    """As MONAI Label's own."""
    json_object(info, "info")
    return monai_label.update_image_info(image, info, user.username)


@router.put("/updatelabelinfo", include_in_schema=False)
@router.put("/label/info", summary="Update Label Info")
def update_label_info(label: str, tag: str, info: str = Form("{}"), user: User = _ANNOTATOR) -> Any:
    """As MONAI Label's own."""
    json_object(info, "info")
    return monai_label.update_label_info(label, tag, info, user.username)


def json_object(text: str, name: str) -> dict[str, Any]:
    """Raises: HTTPException: 422, it is not a JSON object."""
    try:
        parsed = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise HTTPException(422, f"The {name} are not JSON ({error}).") from error
    if not isinstance(parsed, dict):
        raise HTTPException(422, f"The {name} are {text[:80]}; expected a JSON object.")
    return parsed


def _require_volume(file: UploadFile) -> None:
    # MONAI Label's client, which Slicer uses, sends the path that the file has on its own machine.
    file.filename = re.split(r"[/\\]", file.filename or "")[-1]
    if file.filename and not _VOLUME.fullmatch(file.filename):
        raise HTTPException(422, f"The file is {file.filename[:80]!r}; expected a volume: .nii.gz, .nii or .nrrd.")


def replace_datastore_endpoint(application: FastAPI) -> None:
    """Puts this endpoint before MONAI Label's, and gives its refusals their status."""
    application.router.routes[:0] = router.routes
    application.add_exception_handler(ImageNotFoundException, _not_found)
    application.add_exception_handler(LabelNotFoundException, _not_found)
    application.add_exception_handler(RequestValidationError, _not_valid)
    # MONAI Label makes the app when the application has started already, with the handlers that it had by then;
    # without a stack it makes one anew for the next request.
    application.middleware_stack = None


async def _not_found(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MONAILabelException)
    return JSONResponse({"detail": str(error.msg)}, 404)


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    """FastAPI would repeat the whole input, and fails to where this holds what JSON does not have, such as NaN."""
    assert isinstance(error, RequestValidationError)
    details = [{key: problem[key] for key in ("type", "loc", "msg")} for problem in error.errors()]
    return JSONResponse({"detail": json.loads(json.dumps(details, default=str, ensure_ascii=True))}, 422)
