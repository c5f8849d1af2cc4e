"""What there is to learn from: the scans of the datastore that carry clicks or a final mask."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from lib.annotations.geometry import ImageGeometry
from lib.annotations.store import Annotation, AnnotationStore
from lib.annotations.volume import VolumeError, load_volume, read_geometry
from lib.data.scans import AnnotatedScan

logger = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """A training that cannot run; its text is for the user."""


def annotated_scans(datastore: Datastore, store: AnnotationStore, labels: tuple[str, ...]) -> list[AnnotatedScan]:
    """Every usable scan; one that is not is named in the log and left out.

    Raises:
        TrainingError: there is none.
    """
    annotations: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in store:
        if annotation.points.label in labels:
            annotations[annotation.image_id].append(annotation)
    scans = [
        scan
        for image_id in datastore.list_images()
        if (scan := _scan(datastore, image_id, annotations[image_id], labels)) is not None
    ]
    if not scans:
        raise TrainingError("There is nothing to learn from: no study has extreme points or a final mask yet.")
    return scans


def _scan(
    datastore: Datastore, image_id: str, annotations: list[Annotation], labels: tuple[str, ...]
) -> AnnotatedScan | None:
    mask = datastore.get_label_by_image_id(image_id, DefaultLabelTag.FINAL.value)
    if not annotations and not mask:
        return None
    try:
        image_path = Path(datastore.get_image_uri(image_id))
        geometry = read_geometry(image_path)
    except VolumeError as error:
        logger.warning("%s It is left out of the training.", error)
        return None
    except HTTPException as error:  # of a DICOMweb archive
        logger.warning("%s The image %s is left out of the training.", error.detail, image_id)
        return None
    mask_path = Path(datastore.get_label_uri(mask, DefaultLabelTag.FINAL.value)) if mask else None
    if mask_path is not None and (wrong := _wrong_with(mask_path, geometry, labels)):
        logger.warning("The final mask of %s %s Its clicks are used.", image_id, wrong)
        mask_path = None
    fitting = [annotation for annotation in annotations if annotation.geometry.is_close(geometry)]
    if len(fitting) < len(annotations):
        logger.warning("The image %s is not the one that was clicked on; those clicks are left out.", image_id)
    return AnnotatedScan(image_id, image_path, tuple(fitting), mask_path) if fitting or mask_path else None


def _wrong_with(mask_path: Path, geometry: ImageGeometry, labels: tuple[str, ...]) -> str | None:
    """The rest of a sentence that begins with "The mask", or None for a mask that can be learnt from."""
    try:
        mask = load_volume(mask_path)
    except VolumeError as error:
        return f"cannot be learnt from. {error}"
    if not mask.geometry.is_close(geometry):
        return "is not on the grid of its image."
    if unknown := np.setdiff1d(mask.array, np.arange(1 + len(labels))).tolist():
        return f"holds the value {unknown[0]:g}; expected 0 to {len(labels)} for {', '.join(labels)}."
    return None


def grid_spacing_mm(scans: list[AnnotatedScan], min_spacing_mm: float) -> tuple[float, float, float]:
    """Spacing of the network's grid along right, anterior, superior: the scans' median, but not finer than asked."""
    geometries: list[ImageGeometry] = [read_geometry(scan.image_path) for scan in scans]
    median_mm = np.median([geometry.canonical_spacing_mm for geometry in geometries], axis=0)
    right, anterior, superior = np.maximum(median_mm, min_spacing_mm).round(4).tolist()
    return right, anterior, superior
