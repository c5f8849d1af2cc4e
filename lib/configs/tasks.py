"""Make the tasks of the app from its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.train import TrainTask

from lib.annotations.given_masks import GivenMaskStore
from lib.annotations.moments import LONG_AGO, moment_of
from lib.annotations.store import AnnotationStore
from lib.configs.settings import AppSettings
from lib.data.prepared_scans import PreparedScans
from lib.inference.opened_images import OpenedImages
from lib.inference.region_predictor import RegionPredictor
from lib.inference.shape_atlases import ShapeAtlases
from lib.infers.extreme_points_task import ExtremePointsInferTask
from lib.infers.published_model import PublishedModel
from lib.infers.segmentation_task import SegmentationInferTask
from lib.trainers.auto_train import AutoTrain
from lib.trainers.train_task import InExtremISTrainTask
from lib.training.hyperparameters import Hyperparameters
from lib.training.model_folder import NAME, ModelFolder
from lib.training.record import TrainingRecord


def infer_tasks(
    model: PublishedModel,
    images: OpenedImages,
    store: AnnotationStore,
    given_masks: GivenMaskStore,
    atlases: ShapeAtlases,
    on_annotation: Callable[[str], None],
    settings: AppSettings,
) -> dict[str, InferTask]:
    """Make the click task under both of its names, and the automatic task.

    Viewers list models of type "deepedit" among their point prompts, and do not show those of type "annotation".
    """
    test_time_crf = {"auto": None, "true": True, "false": False}[settings.test_time_crf]
    common = (model, RegionPredictor(images, model.device), store, given_masks, atlases, on_annotation)
    return {
        "extreme_points": ExtremePointsInferTask(InferType.DEEPEDIT, *common),
        "extreme_points_annotation": ExtremePointsInferTask(InferType.ANNOTATION, *common),
        NAME: SegmentationInferTask(model, images, test_time_crf=test_time_crf),
    }


def auto_train(
    settings: AppSettings,
    store: AnnotationStore,
    trainers: Mapping[str, InExtremISTrainTask],
    start: Callable[..., object],
) -> AutoTrain:
    """Count annotations since the last training began; `start(model, {}, enqueue=True)` requests a training."""
    (name, trainer), *_ = trainers.items()
    runs = TrainingRecord.load(trainer.models.trainings.record).runs
    seen_until = moment_of(runs[-1].started) if runs else LONG_AGO
    unseen = [
        store.path(answer.image_id, answer.label).name
        for answer in store.answers()
        if moment_of(answer.created) > seen_until
    ]
    return AutoTrain(settings.auto_train, lambda: start(name, {}, enqueue=True), unseen)


def train_tasks(
    models: ModelFolder,
    model: PublishedModel,
    prepared: PreparedScans,
    hyperparameters: Hyperparameters,
    settings: AppSettings,
) -> dict[str, TrainTask]:
    """Make the training task."""
    return {NAME: InExtremISTrainTask(models, settings.labels, prepared, hyperparameters, model.current)}
