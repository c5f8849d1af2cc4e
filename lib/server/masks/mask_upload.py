"""Check and store the masks that annotators submit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException

from lib.annotations.image_identity import file_stamp
from lib.annotations.mask_file import MaskError, require_grid
from lib.annotations.mask_origin import MaskOrigin, acceptances
from lib.annotations.mask_store import MaskStore
from lib.annotations.mask_values import mapped_values
from lib.annotations.names import MAX_LABELS, label_values
from lib.geometry.volume import VolumeError, load_volume, read_geometry
from lib.server.masks.annotation_set import AnnotationSet
from lib.server.masks.final_mask import MaskedImage, mask_before, refusals, requested_labels, save_mask

NAME = "that was submitted"

_MODEL = ("model_version", "model_sha256")


def store_mask(
    annotations: AnnotationSet,
    image_id: str,
    image_path: Path,
    upload: Path,
    tag: str,
    params: Mapping[str, Any],
    annotator: str,
) -> None:
    """Check and store a mask.

    Args:
        image_path: file of the image `image_id`.
        upload: file of the mask.
        params: parameters of the request. `label_info` names the labels, in Slicer's format. `labels` lists the labels
            that the mask answers (default: all); other labels of the stored mask are kept, except in voxels that
            these cover. `proposal` is set if the mask is an unchanged mask of the network: an object with its
            `model_version` and `model_sha256`.

    Raises:
        HTTPException: 409, the stored mask cannot be read; 422, not a mask of this image with labels of this app; 507,
            the disk is full.
    """
    labels, proposal = requested_labels(params, annotations.labels) or annotations.labels, _proposal(params)
    try:
        stamp = file_stamp(image_path)
        require_grid(read_geometry(upload), read_geometry(image_path), NAME)
        mask, image = load_volume(upload, sentinels=False), load_volume(image_path)
        values = mapped_values(mask.array, values_of_labels(params, annotations.labels), annotations.labels, NAME)
        checksum = annotations.identities.checksum(image_path, image.array, stamp)
    except (VolumeError, MaskError) as error:
        raise HTTPException(422, str(error).replace(upload.name, NAME)) from error
    accepted = {} if proposal is None else {label: _acceptance(proposal, annotator) for label in labels}
    masked, masks = MaskedImage(image_id, image.geometry, checksum), annotations.masks(tag)
    with refusals():
        if set(labels) == set(annotations.labels):
            save_mask(masks, masked, values, labels, annotator, accepted)
        else:
            _replace_labels(masks, masked, values, labels, annotator, accepted)


def _replace_labels(
    masks: MaskStore,
    image: MaskedImage,
    values: np.ndarray,
    labels: Sequence[str],
    annotator: str,
    accepted: Mapping[str, Any],
) -> None:
    """Replace some labels of the stored mask by those of a label map (X, Y, Z).

    Raises:
        MaskError: the stored mask is damaged.
        OSError: a mask cannot be read or written.
    """
    index = label_values(masks.labels)
    replaced = [index[label] for label in labels]
    with masks.locked():
        before, array = mask_before(masks, image)
        array[np.isin(array, replaced)] = 0
        drawn = np.isin(values, replaced)
        array[drawn] = values[drawn]
        kept = {label: record for label, record in acceptances(before).items() if label not in labels}
        save_mask(masks, image, array, {*before.labels, *labels}, annotator, {**kept, **accepted})


def _proposal(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the version of the network that made the mask; None if the mask is not a proposal.

    Raises:
        HTTPException: 422, the format is wrong.
    """
    proposal = params.get("proposal")
    if proposal is None:
        return None
    version, checksum = (proposal.get(key) for key in _MODEL) if isinstance(proposal, dict) else (None, None)
    if type(version) is not int or not (checksum is None or isinstance(checksum, str)):
        raise HTTPException(
            422,
            f"The proposal is {str(proposal)[:80]}; expected an object with the model_version, a whole number, and the "
            "model_sha256 that came with the mask.",
        )
    return {"model_version": version, "model_sha256": None if checksum is None else checksum[:64]}


def _acceptance(proposal: dict[str, Any], annotator: str) -> dict[str, Any]:
    """Make the record of a label of an accepted proposal."""
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"origin": MaskOrigin.ACCEPTED.value, "annotator": annotator, "created": created, "clicks": 0, **proposal}


def values_of_labels(params: Mapping[str, Any], labels: Sequence[str]) -> dict[str, int]:
    """Return the value of each label in a submitted mask.

    Slicer numbers the displayed segments, and sends their names as `label_info`: [{"name": ..., "idx": ...}]. The
    default of `idx` is the position in the list, from 1. Without `label_info` the values are those of the app.

    Raises:
        MaskError: the `label_info` is invalid or ambiguous.
    """
    info = params.get("label_info")
    if not info:
        return label_values(labels)
    if not isinstance(info, list):
        raise MaskError(f"The label_info is {str(info)[:80]}; expected a list of {{name, idx}}.")
    if len(info) > MAX_LABELS:
        raise MaskError(f"The label_info has {len(info)} entries; expected at most {MAX_LABELS}.")
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
