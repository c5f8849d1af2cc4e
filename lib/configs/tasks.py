"""The tasks of the app, made from its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.train import TrainTask

from lib.annotations.store import AnnotationStore
from lib.configs.settings import AppSettings
from lib.infers.extreme_points import ExtremePointsInferTask, ListAnnotation
from lib.infers.published_model import PublishedModel
from lib.infers.segmentation import SegmentationInferTask
from lib.networks.versions import ModelVersions
from lib.trainers.auto_train import AutoTrain
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.train_task import InExtremISTrainTask
from lib.trainers.training_record import TrainingRecord


def infer_tasks(
    model: PublishedModel, store: AnnotationStore, list_annotation: ListAnnotation, settings: AppSettings
) -> dict[str, InferTask]:
    """The click task under both of its names, and the automatic task.

    No viewer shows a model of type "annotation", and both show "deepedit" among their point prompts.
    """
    return {
        "extreme_points": ExtremePointsInferTask(InferType.DEEPEDIT, model, store, list_annotation),
        "extreme_points_annotation": ExtremePointsInferTask(InferType.ANNOTATION, model, store, list_annotation),
        "inextremis": SegmentationInferTask(model, test_time_crf=settings.test_time_crf),
    }


def auto_train(
    settings: AppSettings,
    store: AnnotationStore,
    trainers: Mapping[str, InExtremISTrainTask],
    start: Callable[..., object],
) -> AutoTrain:
    """Counts on from what came after the last training began; `start(model, {}, enqueue=True)` asks for one."""
    (name, trainer), *_ = trainers.items()
    runs = TrainingRecord.load(trainer.record_path).runs
    seen_until = datetime.fromisoformat(runs[-1].started) if runs else datetime.min.replace(tzinfo=UTC)
    unseen = [
        store.path(annotation.image_id, annotation.points.label).name
        for annotation in store
        if datetime.fromisoformat(annotation.created) > seen_until
    ]
    return AutoTrain(settings.auto_train, lambda: start(name, {}, enqueue=True), unseen)


def train_tasks(
    model: PublishedModel, store: AnnotationStore, hyperparameters: Hyperparameters, settings: AppSettings
) -> dict[str, TrainTask]:
    """The one trainer."""
    versions = ModelVersions(model.path, settings.keep_versions)
    return {"inextremis": InExtremISTrainTask(versions, settings.labels, store, hyperparameters, settings.tracking)}
