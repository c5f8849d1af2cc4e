"""Write label names, kept in MONAI Label's index by earlier versions, into the masks of a project."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lib.annotations.mask_file import MaskError, MaskRecord
from lib.annotations.mask_store import MaskStore
from lib.annotations.mask_values import mapped_values
from lib.annotations.names import label_values
from lib.geometry.volume import Volume, load_volume
from lib.server.masks.mask_upload import values_of_labels
from lib.server.project import FINAL_TAG, Project

logger = logging.getLogger(__name__)


def name_old_masks(project: Project, labels: Sequence[str]) -> None:
    """Write the label names in the index into each final mask; the old file is kept in the mask's history.

    Masks without names in the index are not changed.

    Args:
        labels: labels of the app.
    """
    masks = MaskStore(project.masks(), labels, project.mapped_masks / FINAL_TAG)
    for image_id, names in _named(project.old_index, labels):
        try:
            path = masks.path(image_id)
            if path is not None:
                created = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
                mask = load_volume(path, sentinels=False)
                values = mapped_values(mask.array, names, labels, path.name)
                record = MaskRecord(label_values(labels), created=created)
                masks.save(image_id, Volume(values, mask.geometry), record)
        except (OSError, ValueError) as error:
            logger.error("The labels of the final mask of %s are taken in the app's order. %s", image_id, error)


def _named(index: Path, labels: Sequence[str]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield image ids with the value of each label in their final mask, as sent by Slicer."""
    try:
        objects = json.loads(index.read_bytes())["objects"]
        infos = {str(i): entry["labels"].get(FINAL_TAG, {}).get("info", {}) for i, entry in objects.items()}
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.error("%s cannot be read (%r); masks of it have their labels in the app's order.", index.name, error)
        return
    for image_id, info in infos.items():
        try:
            if isinstance(info, dict) and info.get("label_info"):
                yield image_id, values_of_labels(info, labels)
        except MaskError as error:
            logger.error("The labels of the final mask of %s are taken in the app's order. %s", image_id, error)
