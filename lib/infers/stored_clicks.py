"""Requests for the mask of clicks that are already stored, such as those of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import HTTPException

from lib.annotations.click_requests import ClickRequestError
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import AnnotationFileError, AnnotationStore
from lib.geometry.image_geometry import ImageGeometry

USE_STORED_CLICKS = "use_stored_clicks"


def asks_for_stored_clicks(request: Mapping[str, Any]) -> bool:
    """Is it a request with `"use_stored_clicks": true`?"""
    return bool(request.get(USE_STORED_CLICKS))


def stored_clicks(
    request: Mapping[str, Any],
    store: AnnotationStore,
    labels: Sequence[str],
    geometry: ImageGeometry,
    image_checksum: str | None,
) -> list[ExtremePoints]:
    """The stored clicks on the structures of the request's image.

    Args:
        labels: of the app; clicks on others are left out.
        geometry, image_checksum: of the image as it is now.

    Raises:
        ClickRequestError: the request has clicks too; the stored ones cannot be read or were made on another grid.
        HTTPException: 404, there are none.
    """
    if any(request.get(key) for key in (*labels, "foreground", "background")):
        raise ClickRequestError(
            f"The request has clicks and asks for the stored ones; leave out either them or {USE_STORED_CLICKS!r}."
        )
    image_id = request.get("image_id")
    annotated = [label for label in labels if image_id and store.path(image_id, label).exists()]
    if not annotated:
        raise HTTPException(404, f"There are no stored clicks of this image for {', '.join(labels)}.")
    try:
        annotations = [store.load(str(image_id), label) for label in annotated]
    except AnnotationFileError as error:
        raise ClickRequestError(f"{error} Click the structure anew.") from error
    for annotation in annotations:
        if not (annotation.geometry.is_close(geometry) and annotation.is_of(image_checksum)):
            raise ClickRequestError(
                f"Label {annotation.points.label!r}: the image is not the one that was clicked on. Click it anew."
            )
    return [annotation.points for annotation in annotations]
