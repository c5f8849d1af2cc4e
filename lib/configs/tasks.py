"""The tasks of the app, made from its settings."""

from __future__ import annotations

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.train import TrainTask

from lib.annotations.store import AnnotationStore
from lib.configs.settings import AppSettings
from lib.infers.extreme_points import ExtremePointsInferTask, ListAnnotation
from lib.infers.published_model import PublishedModel
from lib.infers.segmentation import SegmentationInferTask
from lib.networks.versions import ModelVersions
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.train_task import InExtremISTrainTask


def infer_tasks(model: PublishedModel, store: AnnotationStore, list_annotation: ListAnnotation) -> dict[str, InferTask]:
    """The click task under both of its names, and the automatic task.

    No viewer shows a model of type "annotation", and both show "deepedit" among their point prompts.
    """
    return {
        "extreme_points": ExtremePointsInferTask(InferType.DEEPEDIT, model, store, list_annotation),
        "extreme_points_annotation": ExtremePointsInferTask(InferType.ANNOTATION, model, store, list_annotation),
        "inextremis": SegmentationInferTask(model),
    }


def train_tasks(
    model: PublishedModel, store: AnnotationStore, hyperparameters: Hyperparameters, settings: AppSettings
) -> dict[str, TrainTask]:
    """The one trainer."""
    versions = ModelVersions(model.path, settings.keep_versions)
    return {"inextremis": InExtremISTrainTask(versions, settings.labels, store, hyperparameters, settings.tracking)}
