"""What a project's folders tell: annotations, trainings, and what the model makes of the scans."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.annotations.completeness import unanswered_labels
from lib.annotations.mask_origin import MaskOrigin, origins
from lib.annotations.masks import MaskError, MaskStore
from lib.annotations.store import Absence, Annotation, AnnotationStore, Answer
from lib.exchange.study_images import visible_files, without_extension
from lib.geometry.volume_files import EXTENSIONS
from lib.networks.checkpoint import CheckpointError, TrainedModel, load_checkpoint
from lib.report.annotated_image import AnnotatedImage
from lib.report.readings import ReaderAgreement, reader_agreements
from lib.server.audit import AuditRecord, last_records
from lib.server.project import Project, first_labels
from lib.training.record import TrainingRecord

logger = logging.getLogger(__name__)

MOST_RECORDS = 200


class ReportError(ValueError):
    """A folder that there is nothing to report of; its text is for the user."""


@dataclass(frozen=True)
class AnnotatedProject:
    """Images with annotations, those that were answered last first; all trainings.

    Attributes:
        labels: of the app.
        images: with an answer to a label, or a final mask.
        n_images: how many there are, with and without.
        records: the newest of the audit log.
        agreements: of the readers of studies that several have read, those that disagree most first.
    """

    studies: Path
    labels: tuple[str, ...]
    images: list[AnnotatedImage]
    n_images: int
    record: TrainingRecord
    model: TrainedModel | None
    records: list[AuditRecord]
    agreements: list[ReaderAgreement]

    @property
    def n_annotated(self) -> int:
        """How many images have an answer to every label."""
        return sum(not image.unanswered for image in self.images)

    def n_labels_that_were(self, origin: str) -> int:
        """How many labels of final masks came about in this way."""
        return Counter(of for image in self.images for of in (image.mask_origins or {}).values())[MaskOrigin(origin)]


def read_project(studies: Path, place: Project, model_dir: Path, labels: Sequence[str] = ()) -> AnnotatedProject:
    """Reads the images, the annotations and the models; changes nothing.

    Args:
        studies: folder of the images.
        place: of the annotations.
        labels: of the app; default: those that it had when the project began.

    Raises:
        ReportError: there is no such folder, or nothing is annotated in it.
    """
    if not studies.is_dir():
        raise ReportError(f"There is no folder {studies}; expected the one that the server was started with.")
    labels = labels or first_labels(place) or ("lesion",)
    paths = {without_extension(path.name): path for path in visible_files(studies, EXTENSIONS)}
    answers: dict[str, list[Answer]] = defaultdict(list)
    for answer in AnnotationStore(place.clicks).answers():
        answers[answer.image_id].append(answer)
    masks = MaskStore(place.masks(), labels, place.mapped_masks, first_labels(place) or labels)
    finals, agreements = _origins_of_masks(masks), reader_agreements(place.agreements, masks)
    begun = sorted({*answers, *(finals.keys() & set(paths))})
    if not begun and not agreements:
        raise ReportError(f"Nothing is annotated in {studies}; click on a study first.")
    images = [_image(i, paths.get(i), answers.get(i, []), finals.get(i), labels) for i in begun]
    return AnnotatedProject(
        studies,
        tuple(labels),
        sorted(images, key=lambda image: image.answered, reverse=True),
        len(set(paths) | set(begun)),
        TrainingRecord.load(model_dir / "inextremis" / "record.json"),
        _model(model_dir / "inextremis.pt"),
        last_records(place.audit, MOST_RECORDS),
        agreements,
    )


def _origins_of_masks(finals: MaskStore) -> dict[str, dict[str, MaskOrigin]]:
    """How each label that the final mask of an image covers came about; none of one that cannot be read."""
    covered: dict[str, dict[str, MaskOrigin]] = {}
    for image_id in finals.paths():
        try:
            covered[image_id] = origins(finals.record(image_id))
        except MaskError as error:
            logger.warning("%s", error)
            covered[image_id] = {}
    return covered


def _image(
    image_id: str,
    path: Path | None,
    answers: Sequence[Answer],
    mask_origins: Mapping[str, MaskOrigin] | None,
    labels: Sequence[str],
) -> AnnotatedImage:
    return AnnotatedImage(
        image_id,
        path,
        tuple(answer for answer in answers if isinstance(answer, Annotation)),
        tuple(answer for answer in answers if isinstance(answer, Absence)),
        mask_origins,
        unanswered_labels(labels, [answer.label for answer in answers], mask_origins or ()),
    )


def _model(path: Path) -> TrainedModel | None:
    try:
        return load_checkpoint(path)
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        logger.warning("%s The report does without it.", error)
        return None
