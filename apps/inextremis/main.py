"""The InExtremIS app for MONAI Label. Wiring only."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

# MONAI Label puts only this folder on the path; lib/ lies at the root of the repository.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import monailabel.interfaces.app
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from lib.activelearning.background_scoring import BackgroundScoring
from lib.activelearning.scores import UncertaintyScores
from lib.activelearning.strategies import require_strategy, strategies
from lib.annotations.store import AnnotationStore
from lib.configs.ctrl_c import end_on_ctrl_c_as_on_sigterm
from lib.configs.settings import ConfigurationError, read_conf
from lib.configs.tasks import auto_train, infer_tasks, train_tasks
from lib.configs.warm_up import warm_up_in_background
from lib.datastore.dicomweb import DICOMWebStudies, set_archive_defaults
from lib.datastore.studies import open_studies_folder
from lib.infers.published_model import PublishedModel
from lib.infers.requests import checked_request, require_model
from lib.networks.versions import ModelVersions
from lib.trainers.background import end_with_server, let_children_know_the_server, yield_to_annotators

logger = logging.getLogger(__name__)


class InExtremIS(MONAILabelApp):
    """Six extreme points to a mask at once, and to a model that learns from them in the background."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        try:
            self.settings, self.hyperparameters = read_conf(conf)
        except ConfigurationError as error:
            logger.critical(error)
            raise SystemExit(2) from error
        self.model_dir = (self.settings.model_dir or Path(app_dir) / "model").resolve()
        self.published = PublishedModel(self.model_dir / "inextremis.pt", self.settings.labels)
        self.scores = UncertaintyScores(ModelVersions(self.published.path).folder / "uncertainty.json")
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="InExtremIS",
            description="Segmentation models learnt from six extreme points a structure",
            version="0.1.0",
            labels=list(self.settings.labels),
        )

    def init_datastore(self) -> Datastore:
        if self.studies.startswith(("http://", "https://")):
            set_archive_defaults()
            # The name by which MONAI Label, which reads the address and the login, makes its datastore.
            monailabel.interfaces.app.DICOMWebDatastore = DICOMWebStudies
            return super().init_datastore()
        return open_studies_folder(self.studies)

    def init_infers(self) -> dict[str, InferTask]:
        self.store = AnnotationStore(self.datastore().annotation_folder)
        return infer_tasks(self.published, self.store, self.datastore().list_annotation, self.settings)

    def init_trainers(self) -> dict[str, TrainTask]:
        return train_tasks(self.published, self.store, self.hyperparameters, self.settings)

    def init_strategies(self) -> dict[str, Strategy]:
        return strategies(self.scores, self.settings.labels)

    def next_sample(self, request: dict) -> dict:
        require_strategy(request.get("strategy"), self._strategies)
        return super().next_sample(request)

    def infer(self, request: dict, datastore: Datastore | None = None) -> dict:
        require_model(request.get("model"), self._infers)
        sessions = Path(self.sessions().store_path) if self.sessions() else None
        datastore = datastore or self.datastore()
        return super().infer(checked_request(request, datastore, sessions), datastore)

    @property
    def trainers(self) -> dict[str, TrainTask]:
        return self._trainers

    def train(self, request: dict) -> dict:
        if not self._server_mode:
            end_with_server()
            yield_to_annotators(self.settings.gpu_memory_share)
        return super().train(request)

    def on_init_complete(self) -> None:
        super().on_init_complete()
        from monailabel.app import app as application

        from lib.datastore.endpoint import replace_datastore_endpoint
        from lib.infers.endpoint import replace_inference_endpoint
        from lib.trainers.endpoint import replace_training_endpoint, start_training

        replace_datastore_endpoint(application)
        replace_inference_endpoint(application)
        replace_training_endpoint(application)
        self.auto_train = auto_train(self.settings, self.store, self._trainers, start_training)
        self.datastore().on_annotation = self.auto_train.annotated
        end_on_ctrl_c_as_on_sigterm()
        let_children_know_the_server()
        warm_up_in_background()
        BackgroundScoring(self.published, self.datastore(), self.scores).start()
