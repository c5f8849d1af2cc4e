"""Make click masks final on the server, without an upload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException

from lib.annotations.given_masks import GivenMask, GivenMaskError, clicks_digest
from lib.annotations.mask_origin import MaskOrigin, acceptances
from lib.annotations.names import label_values
from lib.annotations.store import Annotation, AnnotationFileError
from lib.geometry.volume import VolumeError, read_geometry
from lib.server.http.refusals import answered_with
from lib.server.masks.annotation_set import AnnotationSet
from lib.server.masks.final_mask import MaskedImage, mask_before, refusals, requested_labels, save_mask
from lib.server.project import FINAL_TAG


@dataclass(frozen=True)
class _Shown:
    """Click mask of a label as shown to an annotator, and the record of its acceptance."""

    given: GivenMask
    record: Mapping[str, Any]


def accept(
    annotations: AnnotationSet, image_id: str, image_path: Path, request: Mapping[str, Any], annotator: str
) -> tuple[dict[str, Any], bool]:
    """Write the latest click masks that were shown to an annotator into the final mask of an image.

    An accepted mask replaces its label in the final mask, and overwrites other labels where it overlaps them. Where
    several accepted masks overlap, the one that was made last has the voxel.

    Args:
        image_path: file of the image `image_id`.
        request: `labels` names the labels to accept; default: all with clicks.

    Returns:
        The accepted labels with the record of each, and whether anything has changed: accepting the same masks again
        changes nothing.

    Raises:
        HTTPException: 404, there are no clicks; 409, this annotator was not shown a mask of the stored clicks, or a
            stored mask cannot be read; 422, not labels of the app, or the image cannot be read; 507, the disk is full.
    """
    image = _image(annotations, image_id, image_path)
    clicks = _clicks(annotations, image, request)
    shown = {label: _shown(annotations, image, annotation, annotator) for label, annotation in clicks.items()}
    masks = annotations.masks()
    with refusals(), masks.locked():
        before, array = mask_before(masks, image)
        accepted = acceptances(before)
        new = {label: one for label, one in shown.items() if not _is_same(accepted.get(label), one.record)}
        if new:
            _draw(array, new, annotations.labels)
            accepted |= {label: one.record for label, one in new.items()}
            save_mask(masks, image, array, {*before.labels, *new}, annotator, accepted)
    return {"image": image_id, "labels": {label: accepted[label] for label in shown}}, bool(new)


def take_back(annotations: AnnotationSet, image_id: str, annotator: str) -> dict[str, Any]:
    """Take an acceptance back: restore the final mask before it, or delete the final mask if there was none.

    Returns:
        Image id, and whether it has a final mask now.

    Raises:
        HTTPException: 404, no such image, or no final mask of it; 409, the final mask was not accepted, was accepted
            by another annotator, or cannot be read; 507, the disk is full.
    """
    annotations.require_label(image_id, FINAL_TAG)
    masks = annotations.masks()
    with refusals(), masks.locked():
        record = masks.record(image_id)
        if not acceptances(record):
            raise HTTPException(
                409, "The final mask was submitted and not accepted, so that there is no acceptance to take back."
            )
        if record.annotator != annotator:
            raise HTTPException(
                409, f"The final mask was accepted by {record.annotator!r}; it can be replaced, and taken back by them."
            )
        return {"image": image_id, "final_mask": masks.revert(image_id)}


def _image(annotations: AnnotationSet, image_id: str, path: Path) -> MaskedImage:
    with answered_with(422, VolumeError):
        return MaskedImage(image_id, read_geometry(path), annotations.identities.checksum(path))


def _clicks(annotations: AnnotationSet, image: MaskedImage, request: Mapping[str, Any]) -> dict[str, Annotation]:
    """Return the stored clicks on the labels of a request, in the app's order."""
    chosen = requested_labels(request, annotations.labels)
    found = {label: _annotation(annotations, image, label) for label in chosen or annotations.labels}
    clicks = {label: annotation for label, annotation in found.items() if annotation is not None}
    missing = [label for label in chosen if label not in clicks] or ([] if clicks else list(annotations.labels))
    if missing:
        raise HTTPException(
            404, f"There are no clicks on {', '.join(missing)} in the image {image.id!r}; click first, then accept."
        )
    return clicks


def _annotation(annotations: AnnotationSet, image: MaskedImage, label: str) -> Annotation | None:
    """Return the stored clicks on a label; None if there are none."""
    try:
        answer = annotations.clicks.load(image.id, label)
    except FileNotFoundError:
        return None
    except AnnotationFileError as error:
        raise HTTPException(409, f"{error} Click the structure again.") from error
    if not isinstance(answer, Annotation):
        return None
    if not (answer.geometry.is_close(image.geometry) and answer.is_of(image.checksum)):
        raise HTTPException(409, f"Label {label!r}: the image is not the one that was clicked on. Click it again.")
    return answer


def _shown(annotations: AnnotationSet, image: MaskedImage, annotation: Annotation, annotator: str) -> _Shown:
    """Return the click mask of a label that an annotator was shown for the stored clicks."""
    points, label = annotation.points, annotation.label
    remedy = "Ask for the mask of the stored clicks (use_stored_clicks) or click again, then accept it."
    try:
        given = annotations.given_masks.load(image.id, label, annotator)
    except FileNotFoundError as error:
        raise HTTPException(
            409,
            f"Label {label!r}: no mask of the stored clicks, which are by {annotation.annotator!r}, was given to "
            f"{annotator!r}. {remedy}",
        ) from error
    except GivenMaskError as error:
        raise HTTPException(409, f"{error} {remedy}") from error
    if given.clicks != clicks_digest(points, image.checksum):
        raise HTTPException(
            409,
            f"Label {label!r}: the clicks were changed by {annotation.annotator!r} since a mask was given to "
            f"{annotator!r}. {remedy}",
        )
    now, first = datetime.now(UTC), annotations.clicks.first_clicked(image.id, label, annotator)
    record = {
        "origin": MaskOrigin.of_clicks(points).value,
        "annotator": annotator,
        "created": now.isoformat(timespec="milliseconds"),
        "model_version": given.model_version,
        "model_sha256": given.model_sha256,
        "clicks": len(points.foreground_voxel) + len(points.background_voxel),
        "seconds": None if first is None else round(max(0.0, (now - first).total_seconds()), 3),
        "given": given.given,
    }
    return _Shown(given, record)


def _is_same(accepted: Mapping[str, Any] | None, record: Mapping[str, Any]) -> bool:
    """Tell whether the same mask was accepted by the same annotator."""
    return accepted is not None and all(accepted.get(key) == record[key] for key in ("annotator", "given"))


def _draw(label_map: np.ndarray, shown: Mapping[str, _Shown], labels: tuple[str, ...]) -> None:
    """Replace labels in a label map (X, Y, Z) in place."""
    index = label_values(labels)
    for label, one in sorted(shown.items(), key=lambda item: item[1].given.given):
        label_map[label_map == index[label]] = 0
        one.given.draw(label_map, index[label])
