"""What a project's folders tell: annotations, trainings, and what the model makes of the scans."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.activelearning.scores import UncertaintyScores
from lib.annotations.masks import MaskStore
from lib.annotations.store import Annotation, AnnotationStore
from lib.exchange.study_images import visible_files, without_extension
from lib.geometry.volume_files import EXTENSIONS
from lib.networks.checkpoint import CheckpointError, TrainedModel, load_checkpoint
from lib.networks.versions import ModelVersions
from lib.report.annotated_image import AnnotatedImage, with_findings
from lib.server.project import Project
from lib.trainers.training_record import TrainingRecord

logger = logging.getLogger(__name__)


class ReportError(ValueError):
    """A folder that there is nothing to report of; its text is for the user."""


@dataclass(frozen=True)
class AnnotatedProject:
    """Annotated images, those the network is least sure of first; all trainings; doubts about the other images."""

    studies: Path
    images: list[AnnotatedImage]
    n_images: int
    record: TrainingRecord
    model: TrainedModel | None
    open_doubts: dict[str, float] = field(default_factory=dict)


def read_project(studies: Path, place: Project, model_dir: Path) -> AnnotatedProject:
    """Reads the images, the annotations and the models; changes nothing.

    Args:
        studies: folder of the images.
        place: of the annotations.

    Raises:
        ReportError: there is no such folder, or nothing is annotated in it.
    """
    if not studies.is_dir():
        raise ReportError(f"There is no folder {studies}; expected the one that the server was started with.")
    paths = {without_extension(path.name): path for path in visible_files(studies, EXTENSIONS)}
    annotations: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in AnnotationStore(place.clicks):
        annotations[annotation.image_id].append(annotation)
    finals = MaskStore(place.masks(), (), place.mapped_masks).paths().keys()
    annotated = sorted({*annotations, *(finals & set(paths))})
    if not annotated:
        raise ReportError(f"Nothing is annotated in {studies}; click on a study first.")
    model = _model(model_dir / "inextremis.pt")
    images = [
        with_findings(AnnotatedImage(i, paths.get(i), tuple(annotations[i]), i in finals), model) for i in annotated
    ]
    images.sort(key=lambda image: (-(image.doubt or 0.0), image.image_id))
    return AnnotatedProject(
        studies,
        images,
        len(set(paths) | set(annotated)),
        TrainingRecord.load(model_dir / "inextremis" / "record.json"),
        model,
        _open_doubts(model_dir, model, sorted(set(paths) - set(annotated))),
    )


def _model(path: Path) -> TrainedModel | None:
    try:
        return load_checkpoint(path)
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        logger.warning("%s The report does without it.", error)
        return None


def _open_doubts(model_dir: Path, model: TrainedModel | None, image_ids: Sequence[str]) -> dict[str, float]:
    """Of the images that are not annotated, as far as the server has scored them; the highest first."""
    if model is None:
        return {}
    scores = UncertaintyScores(ModelVersions(model_dir / "inextremis.pt").folder / "uncertainty.json")
    doubts: dict[str, float] = {}
    for label in model.spec.labels:
        for image_id, score in scores.of(image_ids, label).items():
            doubts[image_id] = max(score, doubts.get(image_id, 0.0))
    return dict(sorted(doubts.items(), key=lambda item: -item[1]))
