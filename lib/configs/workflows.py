"""Open the model, the images and the training for annotation; none of them for review."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from lib.activelearning.strategies import strategies
from lib.configs.settings import AppSettings
from lib.configs.tasks import auto_train, infer_tasks, train_tasks
from lib.configs.warm_up import warm_up
from lib.data.prepared_scans import PreparedScans
from lib.inference.opened_images import OpenedImages
from lib.inference.shape_atlases import ShapeAtlases
from lib.infers.opening import Opening
from lib.infers.published_model import PublishedModel
from lib.server.project import claim_model
from lib.server.studies.datastore import Studies
from lib.trainers.auto_train import AutoTrain
from lib.trainers.background import pass_server_to_children
from lib.training.hyperparameters import Hyperparameters
from lib.training.model_folder import ModelFolder

logger = logging.getLogger(__name__)

StartTraining = Callable[..., object]
"""`start(model, {}, enqueue=True)` requests a training."""


class AnnotationWorkflow:
    """Workflow with clicks, masks and trainings.

    Attributes:
        hint: for annotators, next to the name of the app.
        published: the model that requests use.
        atlases: shapes learnt from accepted masks.
        auto_train: counts annotations until the next training; set by `start`.
    """

    hint = "click the six extreme points of a structure"
    auto_train: AutoTrain

    def __init__(self, studies: Studies, settings: AppSettings, hyperparameters: Hyperparameters) -> None:
        model_dir = settings.model_dir or studies.project.model
        self.studies, self.settings = studies, settings
        models = ModelFolder(model_dir, settings.keep_versions)
        self.published = PublishedModel(models.published, settings.labels)
        prepared = PreparedScans(studies.project.prepared)
        self.images = OpenedImages(prepared, studies.identities)
        self.opening = Opening(self.images, self.published)
        files = (models.trainings.atlases_of_clicks, models.trainings.click_networks)
        self.atlases = ShapeAtlases(studies.masks(), studies.clicks, *files, studies.skipped)
        self.trainers = train_tasks(models, self.published, prepared, hyperparameters, settings)
        _warn_of_other_studies(model_dir, studies)

    def infer_tasks(self) -> dict[str, InferTask]:
        studies = self.studies
        stores = (studies.clicks, studies.given_masks, self.atlases, lambda name: studies.on_annotation(name))
        return infer_tasks(self.published, self.images, *stores, self.settings)

    def train_tasks(self) -> dict[str, TrainTask]:
        return dict(self.trainers)

    def strategies(self) -> dict[str, Strategy]:
        return strategies(self.studies.leases, self.studies.proposal_qualities)

    def open_soon(self, image_id: str) -> None:
        """Read an image in advance that will be clicked on."""
        self.opening.open_soon(self.studies.image_path(image_id))

    def start(self, start_training: StartTraining) -> None:
        """Compile the kernels, and start to count annotations and to read images and masks in the background."""
        self.auto_train = auto_train(self.settings, self.studies.clicks, self.trainers, start_training)
        self.studies.on_annotation = self._annotated
        pass_server_to_children()
        warm_up()
        self.opening.start()
        self.atlases.start()

    def _annotated(self, name: str) -> None:
        self.auto_train.annotated(name)
        self.atlases.refresh_soon()


class ReviewWorkflow:
    """Workflow without model, clicks and training; see `AnnotationWorkflow`."""

    hint = ""

    def infer_tasks(self) -> dict[str, InferTask]:
        return {}

    def train_tasks(self) -> dict[str, TrainTask]:
        return {}

    def strategies(self) -> dict[str, Strategy]:
        return {}

    def open_soon(self, image_id: str) -> None:
        pass

    def start(self, start_training: StartTraining) -> None:
        pass


def _warn_of_other_studies(model_dir: Path, studies: Studies) -> None:
    other = claim_model(model_dir, studies.identity, studies.name())
    if other is not None:
        logger.warning(
            "The folder %s holds the model of other studies, %s, and trainings continue from it; give these studies a "
            "folder of their own with --conf model_dir, or leave the setting out.",
            model_dir,
            other,
        )
