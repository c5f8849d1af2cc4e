"""Check inference requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException

RESULT_EXTENSIONS = (".nrrd", ".nii.gz", ".nii")
RESULT_DTYPES = ("uint8", "uint16", "int16", "int32", "float32")


def check_result_format(request: Mapping[str, Any]) -> None:
    """Raise HTTPException 422 if the format of the mask is not supported."""
    for key, allowed in (("result_extension", RESULT_EXTENSIONS), ("result_dtype", RESULT_DTYPES)):
        value = request.get(key)
        if value and value not in allowed:
            raise HTTPException(422, f"The {key} is {str(value)[:80]!r}; expected one of {', '.join(allowed)}.")


def require_model(model: Any, models: Mapping[str, object]) -> None:
    """Raise HTTPException 404 if there is no such model."""
    if not isinstance(model, str) or model not in models:
        raise HTTPException(404, f"There is no model {str(model)[:80]!r}; this app has {', '.join(models)}.")


def annotator_of(request: Mapping[str, Any]) -> str:
    """Return the name of the annotator (Slicer sends a `client_id`, OHIF does not)."""
    return str(request.get("client_id") or "unknown")[:200]
