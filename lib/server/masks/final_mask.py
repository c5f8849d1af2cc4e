"""Replace labels in the final mask of an image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import HTTPException

from lib.annotations.click_requests import ClickRequestError, named_labels
from lib.annotations.mask_file import MaskError, MaskRecord
from lib.annotations.mask_origin import ACCEPTED_KEY
from lib.annotations.mask_store import MaskStore
from lib.annotations.names import label_values
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.server.http.disk_full import writing
from lib.server.http.refusals import answered_with


@dataclass(frozen=True)
class MaskedImage:
    """Current version of an image.

    Attributes:
        checksum: checksum of its voxels.
    """

    id: str
    geometry: ImageGeometry
    checksum: str


def requested_labels(request: Mapping[str, Any], labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels in the list `labels` of a request; empty if it has no such list.

    Raises:
        HTTPException: 422, an empty list, or not labels of the app.
    """
    with answered_with(422, ClickRequestError):
        chosen = named_labels(request, "labels", labels)
    if "labels" in request and not chosen:
        raise HTTPException(422, "The list 'labels' is empty; omit it to take all labels.")
    return chosen


@contextmanager
def refusals() -> Iterator[None]:
    """Convert errors with a final mask to HTTPException: 404, deleted; 409, unreadable; 507, the disk is full."""
    try:
        with writing("The mask", gone=HTTPException(404, "The final mask was deleted just now.")):
            yield
    except MaskError as error:
        raise HTTPException(409, f"{error} Submit a mask in its place, or delete it, then retry.") from error


def mask_before(masks: MaskStore, image: MaskedImage) -> tuple[MaskRecord, np.ndarray]:
    """Return the record and the label map (X, Y, Z) uint8 of an image's final mask; empty ones if it has none.

    Raises:
        MaskError: the mask is damaged.
        OSError: it cannot be read.
    """
    empty = MaskRecord({}), np.zeros(image.geometry.shape, np.uint8, order="F")
    if masks.path(image.id) is None:
        return empty
    record, mask = masks.record(image.id), masks.load(image.id)
    of_image = mask.geometry.is_close(image.geometry) and record.image_checksum in (None, image.checksum)
    return (record, mask.array) if of_image else empty


def save_mask(
    masks: MaskStore,
    image: MaskedImage,
    array: np.ndarray,
    covered: Collection[str],
    annotator: str,
    accepted: Mapping[str, Any],
) -> None:
    """Store a label map (X, Y, Z) with the label values of the app.

    Args:
        covered: labels that the mask answers.
        accepted: record of each label that was accepted and not drawn.

    Raises:
        MaskError: the mask is not valid.
        OSError: it cannot be written.
    """
    values = {label: value for label, value in label_values(masks.labels).items() if label in covered}
    info = {ACCEPTED_KEY: dict(accepted)} if accepted else None
    record = MaskRecord(values, annotator, image_checksum=image.checksum, info=info)
    masks.save(image.id, Volume(array, image.geometry), record)
