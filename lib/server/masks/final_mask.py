"""Replace labels in the final mask of an image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import HTTPException

from lib.annotations.mask_file import MaskError, MaskRecord
from lib.annotations.mask_origin import ACCEPTED_KEY
from lib.annotations.mask_store import MaskStore
from lib.annotations.names import label_values
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.server.http.disk_full import writing


@dataclass(frozen=True)
class MaskedImage:
    """An image as it is now.

    Attributes:
        checksum: of its voxels.
    """

    id: str
    geometry: ImageGeometry
    checksum: str


@contextmanager
def refusals() -> Iterator[None]:
    """What goes wrong with a final mask, as HTTPException: 404, it was deleted; 409, it cannot be read; 507."""
    try:
        with writing("The mask", gone=HTTPException(404, "The final mask was deleted just now.")):
            yield
    except MaskError as error:
        raise HTTPException(409, f"{error} Submit a mask in its place, or delete it, then retry.") from error


def mask_before(masks: MaskStore, image: MaskedImage) -> tuple[MaskRecord, np.ndarray]:
    """The record and the label map (X, Y, Z) uint8 of an image's final mask; empty ones where it has none.

    Raises: MaskError; OSError.
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
    """Stores a label map (X, Y, Z) with the app's values.

    Args:
        covered: the labels that it is about; the others are not answered by it.
        accepted: what is recorded of each label that was not drawn.

    Raises: MaskError; OSError.
    """
    values = {label: value for label, value in label_values(masks.labels).items() if label in covered}
    info = {ACCEPTED_KEY: dict(accepted)} if accepted else None
    record = MaskRecord(values, annotator, image_checksum=image.checksum, info=info)
    masks.save(image.id, Volume(array, image.geometry), record)
