"""Masks that annotators submit, checked before they are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from lib.annotations.image_identity import file_stamp
from lib.annotations.masks import MaskError, MaskRecord, mapped_values, require_grid
from lib.annotations.names import MOST_LABELS, label_values
from lib.geometry.volume import Volume, VolumeError, load_volume, read_geometry
from lib.server.annotation_set import AnnotationSet
from lib.server.disk_full import not_stored

NAME = "that was submitted"


def store_mask(
    annotations: AnnotationSet,
    image_id: str,
    image_path: Path,
    upload: Path,
    tag: str,
    params: Mapping[str, Any],
    annotator: str,
) -> None:
    """Checks a mask and stores it.

    Args:
        image_path: of the image `image_id`.
        upload: file of the mask.
        params: of the request; `label_info` names the labels as Slicer does.

    Raises:
        HTTPException: 422, not a mask of this image with labels of this app; 507, the disk is full.
    """
    try:
        stamp = file_stamp(image_path)
        require_grid(read_geometry(upload), read_geometry(image_path), NAME)
        mask, image = load_volume(upload, sentinels=False), load_volume(image_path)
        values = mapped_values(mask.array, values_of_labels(params, annotations.labels), annotations.labels, NAME)
        checksum = annotations.identities.checksum(image_path, image.array, stamp)
    except (VolumeError, MaskError) as error:
        raise HTTPException(422, str(error).replace(upload.name, NAME)) from error
    record = MaskRecord(label_values(annotations.labels), annotator, image_checksum=checksum)
    store = annotations.masks(tag)
    try:
        store.save(image_id, Volume(values, image.geometry), record)
    except OSError as error:
        raise not_stored("The mask", error) from error


def values_of_labels(params: Mapping[str, Any], labels: Sequence[str]) -> dict[str, int]:
    """The value of each label in a submitted mask.

    Slicer numbers the segments that it shows, and sends their names as `label_info`: [{"name": ..., "idx": ...}].
    Without `idx` the position in the list counts, from 1. Without `label_info` the values are the app's.

    Raises:
        MaskError: a `label_info` that says nothing.
    """
    info = params.get("label_info")
    if not info:
        return label_values(labels)
    if not isinstance(info, list):
        raise MaskError(f"The label_info is {str(info)[:80]}; expected a list of {{name, idx}}.")
    if len(info) > MOST_LABELS:
        raise MaskError(f"The label_info has {len(info)} entries; expected at most {MOST_LABELS}.")
    names: dict[int, str] = {}
    for position, entry in enumerate(info, start=1):
        name, index = (entry.get("name"), entry.get("idx", position)) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(index, int) or isinstance(index, bool):
            raise MaskError(f"The label_info holds {str(entry)[:80]}; expected a name and an idx, a whole number.")
        if names.setdefault(index, name.strip()) != name.strip():
            raise MaskError(f"The label_info gives the value {index} to {names[index][:80]!r} and to {name[:80]!r}.")
    name, count = Counter(names.values()).most_common(1)[0]
    if count > 1:
        raise MaskError(f"The label_info names {name[:80]!r} twice; merge these segments.")
    return {name: index for index, name in names.items()}
