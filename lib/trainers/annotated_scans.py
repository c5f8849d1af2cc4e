"""Collect the scans of the datastore that have clicks or a final mask."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Protocol

from fastapi import HTTPException

from lib.annotations.image_identity import ImageIdentities
from lib.annotations.mask_file import MaskError, require_grid
from lib.annotations.mask_origin import MaskOrigin, origins
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import Absence, Annotation, AnnotationStore, Answer
from lib.data.annotated_scan import AnnotatedScan
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError, read_geometry
from lib.training.loop import TrainingError

logger = logging.getLogger(__name__)


class AnnotatedStudies(Protocol):
    """Interface of the studies for a training (`lib.server.studies.datastore.Studies`)."""

    clicks: AnnotationStore
    identities: ImageIdentities

    def list_images(self) -> list[str]: ...

    def get_image_uri(self, image_id: str) -> str: ...

    def masks(self) -> MaskStore: ...

    def skipped(self) -> set[str]: ...


def annotated_scans(studies: AnnotatedStudies, labels: tuple[str, ...]) -> list[AnnotatedScan]:
    """Collect all scans that were not skipped; log scans that cannot be used.

    Raises:
        TrainingError: there is no usable scan.
    """
    answers: dict[str, list[Answer]] = defaultdict(list)
    for answer in studies.clicks.answers():
        if answer.label in labels:
            answers[answer.image_id].append(answer)
    annotated = (answers.keys() | studies.masks().paths().keys()) - studies.skipped()
    scans = [
        scan
        for image_id in studies.list_images()
        if image_id in annotated and (scan := _scan(studies, image_id, answers[image_id])) is not None
    ]
    if not scans:
        raise TrainingError("There is nothing to learn from: no study has extreme points or a final mask yet.")
    return scans


def _scan(studies: AnnotatedStudies, image_id: str, answers: list[Answer]) -> AnnotatedScan | None:
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
    mask_path, mask_labels, mask_origins = _mask(studies.masks(), image_id, geometry, checksum)
    fitting = [answer for answer in answers if answer.geometry.is_close(geometry) and answer.is_of(checksum)]
    if len(fitting) < len(answers):
        logger.warning("The image %s is not the one that was clicked on; those clicks are left out.", image_id)
    scan = AnnotatedScan(
        image_id,
        image_path,
        checksum,
        tuple(answer for answer in fitting if isinstance(answer, Annotation)),
        tuple(answer.label for answer in fitting if isinstance(answer, Absence)),
        mask_path,
        mask_labels,
        mask_origins,
    )
    return scan if scan.answered else None


def _mask(
    masks: MaskStore, image_id: str, geometry: ImageGeometry, checksum: str
) -> tuple[Path | None, tuple[str, ...], dict[str, MaskOrigin]]:
    """Return the file of a final mask with the app's values, the labels it covers, and their origins.

    The file is None if there is no usable mask.
    """
    try:
        mask = masks.checked(image_id)
        require_grid(mask.geometry, geometry, image_id)
        if mask.record.image_checksum not in (None, checksum):
            raise MaskError(f"The mask {image_id} is of another image of that name.")
        covered = tuple(label for label in masks.labels if label in mask.record.labels)
        return mask.path, covered, origins(mask.record)
    except FileNotFoundError:
        return None, (), {}
    except (MaskError, OSError) as error:
        logger.warning("The final mask of %s is not learnt from; its clicks are used. %s", image_id, error)
        return None, (), {}
