"""The InExtremIS app for MONAI Label. Wiring only."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# MONAI Label puts only this folder on the path; lib/ lies at the root of the repository.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.server.process.offline import stay_offline

stay_offline()  # before MLflow is imported

import torch
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from lib import __version__
from lib.activelearning.leases import Leases
from lib.activelearning.strategies import REVIEW, MostDisagreement, require_strategy, strategies
from lib.annotations.json_file import JsonFile
from lib.configs.ctrl_c import end_on_ctrl_c_as_on_sigterm
from lib.configs.settings import AppSettings, ConfigurationError, read_conf
from lib.configs.tasks import auto_train, infer_tasks, train_tasks
from lib.configs.warm_up import warm_up
from lib.data.prepared_scans import PreparedScans
from lib.exchange.property_codes import codes_from
from lib.inference.opened_images import OpenedImages
from lib.inference.shape_atlases import ShapeAtlases
from lib.infers.opening import Opening
from lib.infers.published_model import PublishedModel
from lib.server.audit import AuditLog
from lib.server.changes import Changes
from lib.server.endpoints.model_requests import published_model
from lib.server.endpoints.progress_requests import progress
from lib.server.events import Events
from lib.server.http.upload_sessions import Sessions
from lib.server.installation import Installation, has_event_loop
from lib.server.jobs.pre_annotation import PreAnnotation
from lib.server.jobs.training_process import start_training
from lib.server.launch import StartError, require_studies
from lib.server.login.login_setup import LoginSetupError
from lib.server.process.logs import configure_logging
from lib.server.process.modes import set_umask
from lib.server.process.network import NetworkError, end_process
from lib.server.project import ProjectError, claim_model
from lib.server.review.decisions import Review
from lib.server.studies.datastore import Studies
from lib.server.studies.open_studies import open_studies
from lib.server.studies.study_list import StudyList
from lib.trainers.background import end_with_server, let_children_know_the_server, yield_to_annotators
from lib.trainers.processes import GPUError, is_rank, processes_here, processes_of, require_gpus, train_in_processes
from lib.training.atlases import FILE_NAME as ATLASES_OF_CLICKS
from lib.training.click_networks import FILE_NAME as CLICK_NETWORKS

logger = logging.getLogger(__name__)


class InExtremIS(MONAILabelApp):
    """Six extreme points to a mask at once, and to a model that learns from them in the background."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        configure_logging(None)  # in place of MONAI Label's, until the folder of the log is known
        try:
            self.settings, self.hyperparameters = read_conf(conf)
            set_umask(group=self.settings.file_access == "group")
            self.installation = Installation.prepare(self.settings) if has_event_loop() else None
            if self.installation is not None:  # a training sees some of the GPUs only
                require_gpus(self.settings.gpus)
            studies = require_studies(studies, self.settings.project_dir)
            self._open(studies, self.settings)
            self.pre_annotation = self._pre_annotation(studies, conf)
        except GPUError as error:
            end_process(f"--conf gpus: {error}.")
        except (ConfigurationError, LoginSetupError, NetworkError, StartError, ProjectError) as error:
            end_process(str(error))
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="InExtremIS",
            description="Click the six extreme points of a structure for its mask; a model learns from such clicks",
            version=__version__,
            labels=list(self.settings.labels),
        )

    def _open(self, studies: str, settings: AppSettings) -> None:
        of_archive = (codes_from(settings.codes), settings.modalities)
        self.opened = open_studies(studies, settings.labels, settings.project_dir, *of_archive, settings.n_readers)
        self.review = Review(self.opened.readings)
        if not settings.review:
            self._open_model(settings)

    def _open_model(self, settings: AppSettings) -> None:
        self.model_dir = settings.model_dir or self.opened.project.model
        self.published = PublishedModel(self.model_dir / "inextremis.pt", settings.labels)
        self.prepared = PreparedScans(self.opened.project.prepared)
        self.images = OpenedImages(self.prepared, self.opened.identities)
        self.opening = Opening(self.images, self.published)
        files = (self.model_dir / ATLASES_OF_CLICKS, self.model_dir / CLICK_NETWORKS)
        self.atlases = ShapeAtlases(self.opened.masks(), self.opened.clicks, *files, self.opened.skipped)
        other = claim_model(self.model_dir, self.opened.identity, self.opened.name())
        if other is not None:
            logger.warning(
                "The folder %s holds the model of other studies, %s, and trainings go on from it; give these studies a "
                "folder of their own with --conf model_dir, or leave the setting out.",
                self.model_dir,
                other,
            )

    def _pre_annotation(self, studies: str, conf: Mapping[str, str]) -> PreAnnotation:
        settings = {**conf, "labels": ",".join(self.settings.labels)}
        settings.pop("server_mode", None)
        return PreAnnotation(studies, settings, self.opened.project, leaves_a_core=not torch.cuda.is_available())

    def info(self) -> dict[str, Any]:
        # OHIF's panel shows the name and no description.
        name = self.name if self.settings.review else f"{self.name}: click the six ends of a structure"
        return {**super().info(), "name": name, "codes": self.settings.codes}

    def init_datastore(self) -> Studies:
        return self.opened

    def _load_sessions(self, load: bool = False) -> None:
        self.upload_sessions = Sessions()

    def init_infers(self) -> dict[str, InferTask]:
        if self.settings.review:
            return {}
        opened = self.opened
        return infer_tasks(
            self.published,
            self.images,
            opened.clicks,
            opened.given_masks,
            self.atlases,
            lambda name: opened.on_annotation(name),
            self.settings,
        )

    def init_trainers(self) -> dict[str, TrainTask]:
        if self.settings.review:
            return {}
        return train_tasks(self.published, self.prepared, self.hyperparameters, self.settings)

    def init_strategies(self) -> dict[str, Strategy]:
        known = {} if self.settings.review else strategies(self.opened.leases, self.opened.proposal_qualities)
        if self.settings.n_readers > 1:
            leases = Leases(JsonFile(self.opened.project.review_leases))
            known[REVIEW] = MostDisagreement(self.review, leases)
        return known

    @property
    def models(self) -> dict[str, InferTask]:
        return self._infers

    @property
    def trainers(self) -> dict[str, TrainTask]:
        return self._trainers

    @property
    def strategies(self) -> dict[str, Strategy]:
        return self._strategies

    def next_sample(self, request: dict) -> dict | None:
        require_strategy(request.get("strategy"), self._strategies)
        sample = self._strategies[request["strategy"]](request, self.opened)
        if sample and not self.settings.review:
            self.opening.soon(self.opened.image_path(sample["id"]))
        return sample

    def train(self, request: dict) -> dict:
        if not self._server_mode:
            end_with_server()
            processes = processes_of(request)
            if processes.count > 1 and not is_rank():
                train_in_processes(request, processes)
                return {}
            yield_to_annotators(self.settings.gpu_memory_share, processes_here())
        return super().train(request)

    def on_init_complete(self) -> None:
        from monailabel.app import app as application

        assert self.installation is not None
        self.events = Events(Changes(self.opened, progress, published_model).look, self.installation.is_ending)
        self.installation.install(application, self.opened, self.settings)
        end_on_ctrl_c_as_on_sigterm()
        threading.Thread(target=StudyList(self.opened).read_ahead, name="study-list", daemon=True).start()
        if not self.settings.review:
            self._start_learning()

    def _start_learning(self) -> None:
        self.auto_train = auto_train(self.settings, self.opened.clicks, self._trainers, self._start_training)
        self.opened.on_annotation = self._annotated
        let_children_know_the_server()
        warm_up()
        self.opening.start()
        self.atlases.start()

    def _start_training(self, model: str, params: dict, enqueue: bool) -> None:
        start_training(model, params, enqueue)
        AuditLog(self.opened.project.audit).write("training", "auto_train", {}, {"model": model})

    def _annotated(self, name: str) -> None:
        self.auto_train.annotated(name)
        self.atlases.refresh_soon()
