"""Read the annotations, the trainings and the model of a project from its folders."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.annotations.json_file import JsonFile
from lib.annotations.mask_file import MaskError
from lib.annotations.mask_origin import MaskOrigin
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import Absence, Annotation, AnnotationStore, Answer
from lib.networks.checkpoint import CheckpointError, TrainedModel, load_checkpoint
from lib.report.annotated_image import AnnotatedImage, FinalMask
from lib.report.listed_studies import ListedStudy, listed_studies, project_name
from lib.report.reader_agreements import ReaderAgreement, reader_agreements
from lib.report.running_training import RunningTraining, running_training
from lib.server.audit import AuditRecord, last_records
from lib.server.project import Project, first_labels, is_archive
from lib.training.model_folder import ModelFolder
from lib.training.record import TrainingRecord

logger = logging.getLogger(__name__)

MAX_RECORDS = 200


class ReportError(ValueError):
    """Error of a folder without annotations, with a message for the user."""


@dataclass(frozen=True)
class AnnotatedProject:
    """Annotations and trainings of a project.

    Attributes:
        name: name of the folder or the archive.
        labels: labels of the app.
        studies: all listed studies, by image id.
        images: images with an answer to a label, a final mask, or a skip; latest answer first.
        training: running training, or one that was stopped early.
        records: latest records of the audit log.
        agreements: agreements of readers, in increasing order.
    """

    name: str
    labels: tuple[str, ...]
    studies: Mapping[str, ListedStudy]
    images: list[AnnotatedImage]
    record: TrainingRecord
    training: RunningTraining | None
    model: TrainedModel | None
    records: list[AuditRecord]
    agreements: list[ReaderAgreement]

    @property
    def listed(self) -> list[AnnotatedImage]:
        """Images that are still listed in the studies."""
        return [image for image in self.images if image.study is not None]

    @property
    def untouched(self) -> list[ListedStudy]:
        """Studies without annotations, sorted by name."""
        touched = {image.image_id for image in self.images}
        return sorted((of for i, of in self.studies.items() if i not in touched), key=lambda of: of.name)

    @property
    def n_annotated(self) -> int:
        """Number of studies with an answer to every label."""
        return sum(not image.unanswered for image in self.listed)

    @property
    def counts(self) -> dict[str, int]:
        """Number of studies in each state; they add up to the number of studies."""
        found = Counter(image.state for image in self.listed)
        states = {state: found[state] for state in ("final", "annotated", "begun", "skipped")}
        return {**states, "not started": len(self.studies) - len(self.listed)}

    def name_of(self, image_id: str) -> str:
        return self.studies[image_id].name if image_id in self.studies else image_id

    def n_labels_that_were(self, origin: str) -> int:
        """Count the labels of final masks with this origin."""
        finals = (image.final for image in self.images if image.final is not None)
        return Counter(of for final in finals for of in final.origins.values())[MaskOrigin(origin)]


def read_project(studies: str, project: Project, model_dir: Path, labels: Sequence[str] = ()) -> AnnotatedProject:
    """Read the images, the annotations and the models, without a request to the archive.

    Args:
        studies: folder of the images, or URL of the archive.
        project: folders of the annotations.
        labels: labels of the app; default: those that it had when the project began.

    Raises:
        ReportError: there is no such folder, or it has no annotations.
    """
    expected = project.folder if is_archive(studies) else Path(studies)
    if not expected.is_dir():
        what = f"project of {project_name(studies)}" if is_archive(studies) else f"folder {studies}"
        raise ReportError(f"There is no {what}; expected what the server was started with.")
    labels = tuple(labels or first_labels(project) or ("lesion",))
    listed = listed_studies(studies, project)
    masks = MaskStore(project.masks(), labels, project.mapped_masks, first_labels(project) or labels)
    agreements = reader_agreements(project.agreements, masks)
    images = _images(project, listed, masks)
    if not images and not agreements:
        raise ReportError(f"Nothing is annotated in {project_name(studies)}; click on a study first.")
    models = ModelFolder(model_dir)
    return AnnotatedProject(
        project_name(studies),
        labels,
        listed,
        sorted(images, key=lambda image: image.answered, reverse=True),
        TrainingRecord.load(models.trainings.record),
        running_training(models.trainings.statistics),
        _model(models.published),
        last_records(project.audit, MAX_RECORDS),
        agreements,
    )


def _images(project: Project, listed: Mapping[str, ListedStudy], masks: MaskStore) -> list[AnnotatedImage]:
    answers: dict[str, list[Answer]] = defaultdict(list)
    for answer in AnnotationStore(project.clicks).answers():
        answers[answer.image_id].append(answer)
    skips = JsonFile(project.skips).items() if project.skips.exists() else {}
    finals = {image_id: _final(masks, image_id) for image_id in masks.paths()}
    return [
        AnnotatedImage(
            image_id,
            listed.get(image_id),
            masks.labels,
            tuple(answer for answer in answers[image_id] if isinstance(answer, Annotation)),
            tuple(answer for answer in answers[image_id] if isinstance(answer, Absence)),
            finals.get(image_id),
            _skip(skips[image_id]) if image_id in skips else None,
        )
        for image_id in sorted({*answers, *finals, *skips})
    ]


def _skip(kept: Mapping[str, Any]) -> str:
    parts = [str(kept.get("reason") or ""), f"by {kept['annotator']}" if kept.get("annotator") else ""]
    return ", ".join(filter(None, parts))


def _final(masks: MaskStore, image_id: str) -> FinalMask:
    try:
        record = masks.record(image_id)
    except MaskError as error:
        logger.warning("%s", error)
        record = None
    return FinalMask(record, lambda: masks.load(image_id))


def _model(path: Path) -> TrainedModel | None:
    try:
        return load_checkpoint(path)
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        logger.warning("%s The report is made without the model.", error)
        return None
