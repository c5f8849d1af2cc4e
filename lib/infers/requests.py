"""What every inference request has to pass before a task sees it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore

RESULT_EXTENSIONS = (".nrrd", ".nii.gz", ".nii")
RESULT_DTYPES = ("uint8", "uint16", "int16", "int32", "float32")


def checked_request(request: Mapping[str, Any], datastore: Datastore, sessions_folder: Path | None) -> dict[str, Any]:
    """The request with `image_id`, which MONAI Label would drop, and with nothing in it that escapes a folder.

    An image is one that the datastore knows, or a file that this server itself has just stored: the volume
    of a client's session (under `sessions_folder`), or an upload (under the system's folder of temporary
    files). Such a file has no `image_id`.

    Raises:
        HTTPException: 404, unknown image; 422, a result format that cannot be written.
    """
    checked = dict(request)
    checked["image_id"] = None
    image = request.get("image")
    if not isinstance(image, str) or not image:
        raise HTTPException(422, f"The image is {image!r}; expected the id of an image.")
    if image in datastore.list_images():
        checked["image_id"] = image
    elif not _is_stored_by_server(image, sessions_folder):
        raise HTTPException(404, f"There is no image {image!r} in the studies.")
    _check_result_format(request)
    # Masks that a model makes are answers; only an annotator's mask enters the datastore.
    checked["save_label"] = False
    return checked


def _is_stored_by_server(image: str, sessions_folder: Path | None) -> bool:
    path = Path(image)
    try:
        if not path.is_absolute() or not path.exists():
            return False
        path = path.resolve()
    except OSError:  # a name too long, or in a closed folder
        return False
    in_session = sessions_folder is not None and path.is_relative_to(sessions_folder.resolve())
    uploads = Path(tempfile.gettempdir()).resolve()
    return in_session or (path.parent == uploads and path.is_file() and path.name.startswith(tempfile.gettempprefix()))


def _check_result_format(request: Mapping[str, Any]) -> None:
    for key, allowed in (("result_extension", RESULT_EXTENSIONS), ("result_dtype", RESULT_DTYPES)):
        value = request.get(key)
        if value and value not in allowed:
            raise HTTPException(422, f"The {key} is {value!r}; expected one of {', '.join(allowed)}.")


def require_model(model: Any, models: Mapping[str, object]) -> None:
    """Raises: HTTPException: 404, there is no such model."""
    if not isinstance(model, str) or model not in models:
        raise HTTPException(404, f"There is no model {model!r}; this app has {', '.join(models)}.")


def annotator_of(request: Mapping[str, Any]) -> str:
    """Who clicked, as far as the client says (Slicer sends a `client_id`, OHIF nothing)."""
    return str(request.get("client_id") or "unknown")
