"""What there is to learn from: the scans of the datastore that carry clicks or a final mask."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Protocol

import numpy as np
from fastapi import HTTPException

from lib.annotations.image_identity import ImageIdentities
from lib.annotations.masks import MaskError, MaskStore, require_grid
from lib.annotations.store import Annotation, AnnotationStore
from lib.data.scans import AnnotatedScan
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError, read_geometry

logger = logging.getLogger(__name__)


class AnnotatedStudies(Protocol):
    """What a training asks of the studies (`lib.server.studies.Studies`)."""

    clicks: AnnotationStore
    identities: ImageIdentities

    def list_images(self) -> list[str]: ...

    def get_image_uri(self, image_id: str) -> str: ...

    def masks(self) -> MaskStore: ...


class TrainingError(RuntimeError):
    """A training that cannot run; its text is for the user."""


def annotated_scans(studies: AnnotatedStudies, labels: tuple[str, ...]) -> list[AnnotatedScan]:
    """Every usable scan; one that is not is named in the log and left out.

    Raises:
        TrainingError: there is none.
    """
    annotations: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in studies.clicks:
        if annotation.points.label in labels:
            annotations[annotation.image_id].append(annotation)
    annotated = annotations.keys() | studies.masks().paths().keys()
    scans = [
        scan
        for image_id in studies.list_images()
        if image_id in annotated and (scan := _scan(studies, image_id, annotations[image_id])) is not None
    ]
    if not scans:
        raise TrainingError("There is nothing to learn from: no study has extreme points or a final mask yet.")
    return scans


def _scan(studies: AnnotatedStudies, image_id: str, annotations: list[Annotation]) -> AnnotatedScan | None:
    try:
        image_path = Path(studies.get_image_uri(image_id))
        geometry = read_geometry(image_path)
        checksum = studies.identities.checksum(image_path)
    except VolumeError as error:
        logger.warning("%s It is left out of the training.", error)
        return None
    except HTTPException as error:  # of a DICOMweb archive
        logger.warning("%s The image %s is left out of the training.", error.detail, image_id)
        return None
    mask_path = _mask_path(studies.masks(), image_id, geometry, checksum)
    fitting = [a for a in annotations if a.geometry.is_close(geometry) and a.is_of(checksum)]
    if len(fitting) < len(annotations):
        logger.warning("The image %s is not the one that was clicked on; those clicks are left out.", image_id)
    return AnnotatedScan(image_id, image_path, tuple(fitting), mask_path) if fitting or mask_path else None


def _mask_path(masks: MaskStore, image_id: str, geometry: ImageGeometry, checksum: str) -> Path | None:
    """The file of a final mask with the app's values, or None where there is none that can be learnt from."""
    try:
        record, mask = masks.record(image_id), masks.load(image_id)
        require_grid(mask.geometry, geometry, image_id)
        if missing := [label for label in masks.labels if label not in record.labels]:
            raise MaskError(f"It was made when the app had no label {', '.join(map(repr, missing))}; submit it anew.")
        if record.image_checksum not in (None, checksum):
            raise MaskError(f"The mask {image_id} is of another image of that name.")
        return masks.app_path(image_id)
    except FileNotFoundError:
        return None
    except (MaskError, OSError) as error:
        logger.warning("The final mask of %s is not learnt from; its clicks are used. %s", image_id, error)
        return None


def grid_spacing_mm(scans: list[AnnotatedScan], min_spacing_mm: float) -> tuple[float, float, float]:
    """Spacing of the network's grid along right, anterior, superior: the scans' median, but not finer than asked."""
    geometries: list[ImageGeometry] = [read_geometry(scan.image_path) for scan in scans]
    median_mm = np.median([geometry.canonical_spacing_mm for geometry in geometries], axis=0)
    right, anterior, superior = np.maximum(median_mm, min_spacing_mm).round(4).tolist()
    return right, anterior, superior
