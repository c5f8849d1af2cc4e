"""Read the clicks of requests for the mask of stored clicks, for example of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import HTTPException

from lib.annotations.click_requests import Answers, ClickRequestError
from lib.annotations.store import Absence, Annotation, AnnotationFileError, AnnotationStore
from lib.geometry.image_geometry import ImageGeometry

USE_STORED_CLICKS = "use_stored_clicks"


def asks_for_stored_clicks(request: Mapping[str, Any]) -> bool:
    """Tell whether a request contains `"use_stored_clicks": true`."""
    return bool(request.get(USE_STORED_CLICKS))


def stored_clicks(
    request: Mapping[str, Any],
    store: AnnotationStore,
    labels: Sequence[str],
    geometry: ImageGeometry,
    image_checksum: str | None,
) -> Answers:
    """Return the stored clicks and absent labels of the request's image.

    Args:
        labels: labels of the app; others are ignored.
        geometry, image_checksum: of the image.

    Raises:
        ClickRequestError: the request also has clicks, or the stored clicks cannot be read or are of another image.
        HTTPException: 404, there are no stored clicks.
    """
    if any(request.get(key) for key in (*labels, "foreground", "background", "absent")):
        raise ClickRequestError(
            f"The request has clicks and asks for the stored ones; leave out either them or {USE_STORED_CLICKS!r}."
        )
    image_id = request.get("image_id")
    answered = [label for label in labels if image_id and store.path(image_id, label).exists()]
    if not answered:
        raise HTTPException(404, f"There are no stored clicks of this image for {', '.join(labels)}.")
    try:
        answers = [store.load(str(image_id), label) for label in answered]
    except AnnotationFileError as error:
        raise ClickRequestError(f"{error} Click the structure again.") from error
    for answer in answers:
        if not (answer.geometry.is_close(geometry) and answer.is_of(image_checksum)):
            raise ClickRequestError(
                f"Label {answer.label!r}: the image is not the one that was clicked on. Click it again."
            )
    return Answers(
        tuple(answer.points for answer in answers if isinstance(answer, Annotation)),
        tuple(answer.label for answer in answers if isinstance(answer, Absence)),
    )
