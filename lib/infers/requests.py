"""Check inference requests before a task gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException

RESULT_EXTENSIONS = (".nrrd", ".nii.gz", ".nii")
RESULT_DTYPES = ("uint8", "uint16", "int16", "int32", "float32")


def check_result_format(request: Mapping[str, Any]) -> None:
    """Raises: HTTPException: 422, a format of the mask that cannot be written."""
    for key, allowed in (("result_extension", RESULT_EXTENSIONS), ("result_dtype", RESULT_DTYPES)):
        value = request.get(key)
        if value and value not in allowed:
            raise HTTPException(422, f"The {key} is {str(value)[:80]!r}; expected one of {', '.join(allowed)}.")


def require_model(model: Any, models: Mapping[str, object]) -> None:
    """Raises: HTTPException: 404, there is no such model."""
    if not isinstance(model, str) or model not in models:
        raise HTTPException(404, f"There is no model {str(model)[:80]!r}; this app has {', '.join(models)}.")


def annotator_of(request: Mapping[str, Any]) -> str:
    """The annotator named by the client (Slicer sends a `client_id`, OHIF none)."""
    return str(request.get("client_id") or "unknown")[:200]
