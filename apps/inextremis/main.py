"""Connect the parts of the app to MONAI Label."""

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

stay_offline()  # before MONAI Label imports MLflow

import torch
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from lib import __version__
from lib.activelearning.leases import Leases
from lib.activelearning.strategies import REVIEW, MostDisagreement, require_strategy
from lib.annotations.json_file import JsonFile
from lib.configs.ctrl_c import end_on_ctrl_c_as_on_sigterm
from lib.configs.settings import AppSettings, ConfigurationError, read_conf
from lib.configs.workflows import AnnotationWorkflow, ReviewWorkflow
from lib.exchange.property_codes import codes_from
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
from lib.server.project import ProjectError
from lib.server.review.decisions import Review
from lib.server.studies.datastore import Studies
from lib.server.studies.open_studies import open_studies
from lib.server.studies.study_list import StudyList
from lib.trainers.background import end_with_server, run_at_low_priority
from lib.trainers.processes import GPUError, processes_of, require_gpus, train_in_processes
from lib.training.ranks import is_rank, local_ranks

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
        self.workflow: AnnotationWorkflow | ReviewWorkflow = (
            ReviewWorkflow() if settings.review else AnnotationWorkflow(self.opened, settings, self.hyperparameters)
        )

    def _pre_annotation(self, studies: str, conf: Mapping[str, str]) -> PreAnnotation:
        settings = {**conf, "labels": ",".join(self.settings.labels)}
        settings.pop("server_mode", None)
        return PreAnnotation(studies, settings, self.opened.project, leaves_a_core=not torch.cuda.is_available())

    def info(self) -> dict[str, Any]:
        # OHIF's panel shows the name and no description.
        name = ": ".join(filter(None, (self.name, self.workflow.hint)))
        return {**super().info(), "name": name, "codes": self.settings.codes}

    def init_datastore(self) -> Studies:
        return self.opened

    def _load_sessions(self, load: bool = False) -> None:
        self.upload_sessions = Sessions()

    def init_infers(self) -> dict[str, InferTask]:
        return self.workflow.infer_tasks()

    def init_trainers(self) -> dict[str, TrainTask]:
        return self.workflow.train_tasks()

    def init_strategies(self) -> dict[str, Strategy]:
        known = self.workflow.strategies()
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
        if sample:
            self.workflow.open_soon(sample["id"])
        return sample

    def train(self, request: dict) -> dict:
        if not self._server_mode:
            end_with_server()
            processes = processes_of(request)
            if processes.count > 1 and not is_rank():
                train_in_processes(request, processes)
                return {}
            run_at_low_priority(self.settings.gpu_memory_share, local_ranks())
        return super().train(request)

    def on_init_complete(self) -> None:
        from monailabel.app import app as application

        assert self.installation is not None
        self.events = Events(Changes(self.opened, progress, published_model).look, self.installation.is_ending)
        self.installation.install(application, self.opened, self.settings)
        end_on_ctrl_c_as_on_sigterm()
        threading.Thread(target=StudyList(self.opened).read_ahead, name="study-list", daemon=True).start()
        self.workflow.start(self._start_training)
        self.installation.log_address()

    def _start_training(self, model: str, params: dict, enqueue: bool) -> None:
        start_training(model, params, enqueue)
        AuditLog(self.opened.project.audit).write("training", "auto_train", {}, {"model": model})
