"""Run `lib.training` as the training task of MONAI Label: requests, statistics, logs and curves."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import psutil
import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import processes
from monailabel.utils.others.generic import device_list, name_to_device
from pydantic import ValidationError

from lib.annotations.atomic_write import write_atomically
from lib.data.annotated_scan import AnnotatedScan
from lib.data.prepared_scans import PreparedScans
from lib.geometry.volume import VolumeError
from lib.networks.checkpoint import TrainedModel
from lib.trainers.annotated_scans import annotated_scans
from lib.trainers.curves import Curves
from lib.trainers.event_log import EventLog, supervision_picture
from lib.trainers.processes import GPUError, require_gpus
from lib.training.gate import Verdict
from lib.training.hyperparameters import Hyperparameters, first_error
from lib.training.loop import TrainingError
from lib.training.model_folder import ModelFolder, TrainingFolder
from lib.training.ranks import LostRankError, Ranks
from lib.training.record import TrainingRecord
from lib.training.run import REPORTS, Listener, Report, Training

logger = logging.getLogger(__name__)

LISTINGS = 5
"""Number of attempts of the processes of a training to list the same annotations."""


class InExtremISTrainTask(TrainTask):
    """`lib.training.run.Training` as a task of MONAI Label.

    Args:
        models: published network, its versions and its trainings.
        labels: labels of the app.
        prepared: cache of scans on the network's grid.
        hyperparameters: defaults, which a request may change.
        published: returns the published model.
    """

    def __init__(
        self,
        models: ModelFolder,
        labels: tuple[str, ...],
        prepared: PreparedScans,
        hyperparameters: Hyperparameters,
        published: Callable[[], TrainedModel | None],
    ) -> None:
        super().__init__("Learns from extreme points, in the background")
        self.models = models
        self.labels = labels
        self.prepared = prepared
        self.hyperparameters = hyperparameters
        self._published = published

    def info(self) -> dict[str, Any]:
        return super().info() | {"labels": list(self.labels)}

    def config(self) -> dict[str, Any]:
        """Return the options of a training for viewers."""
        return {"device": device_list(), "pretrained": True} | self.hyperparameters.model_dump()

    def stats(self) -> dict[str, Any]:
        """Return statistics for viewers, which take a record without `total_time` for that of a running training.

        `best_metric` is the score of the published model, also during a training; it is missing without a score.
        """
        running = list(processes("train").values())
        stats = self._kept_stats() or {"epoch": 0, "total_epochs": REPORTS}
        if running and stats.get("start_ts", 0) < _start_s(running[0].pid):
            stats = {"epoch": 0, "total_epochs": REPORTS}  # the process is starting; the file is of another training
        if not running:
            stats.setdefault("total_time", stats.get("current_time", "0:00:00"))
        score = self._published_score(stats.pop("best_metric", None))
        return stats if score is None else stats | {"best_metric": score}

    def _kept_stats(self) -> dict[str, Any]:
        try:
            stats: dict[str, Any] = json.loads(self.models.trainings.statistics.read_bytes())
        except (OSError, ValueError):
            return {}
        return stats

    def _published_score(self, of_this_run: float | None) -> float | None:
        """Return the score of the published model, in [0, 1]; that on training scans if none is held out.

        Args:
            of_this_run: score of the last version that the run of the statistics published.
        """
        model = self._published()
        if model is None or model.score is not None:
            return None if model is None else model.score
        runs = TrainingRecord.load(self.models.trainings.record).runs
        return next((run.score for run in reversed(runs) if run.version == model.version), of_this_run)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Run a training.

        Raises:
            SystemExit: the training failed; the reason is at the end of the task's log.
        """
        try:
            with Ranks.joined() as ranks:
                if not ranks.is_first:  # its warnings would repeat those of the first rank
                    logging.disable(logging.WARNING)
                checked = self.checked_parameters(request)
                return self._run(checked, self._scans(datastore, ranks), ranks)
        except LostRankError as error:
            logger.error("%s The published model stays, and the next training continues after the last epoch.", error)
            raise SystemExit(1) from error
        except (TrainingError, VolumeError) as error:
            logger.error(error)
            raise SystemExit(1) from error
        except OSError as error:
            logger.error("The training ended early: %s. The published model stays; make room, then train again.", error)
            raise SystemExit(1) from error
        except torch.OutOfMemoryError as error:
            logger.error(
                "The training ended early, for want of GPU memory. The published model stays; train again with a "
                "smaller train_batch_size or roi_size, or start the server with a larger gpu_memory_share. (%s)",
                error,
            )
            raise SystemExit(1) from error

    def checked_parameters(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that a request may set; in particular no folder and no address.

        Raises:
            TrainingError: a hyper-parameter is out of its range, or its name is misspelt.
        """
        changes = {name: value for name, value in request.items() if name in Hyperparameters.model_fields}
        _refuse_misspelt(request)
        try:
            changes = self._without_unchanged(changes)
            self.hyperparameters.changed(changes)
        except ValidationError as error:
            raise TrainingError(f"The training cannot start: {first_error(error)}") from error
        return changes | _checked_device(request)

    def _without_unchanged(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Remove unchanged options if all are sent, as viewers do: they would override values of another method."""
        if changes.keys() < Hyperparameters.model_fields.keys():
            return changes
        own = self.hyperparameters
        sent = own.changed({**changes, "method": own.method})
        differs = {name for name in changes if getattr(sent, name) != getattr(own, name)}
        return {name: value for name, value in changes.items() if name in differs or name == "method"}

    def _scans(self, datastore: Datastore, ranks: Ranks) -> list[AnnotatedScan]:
        """List the annotated scans on each rank; repeat this if annotations changed in between.

        Raises:
            TrainingError: there is no scan, or the ranks do not see the same annotations.
        """
        for _ in range(LISTINGS):
            scans = annotated_scans(datastore, self.labels)
            digest = hashlib.sha256("".join(scan.digest for scan in scans).encode()).digest()
            if ranks.first_true(digest != ranks.bytes_of_first(digest)) is None:
                return scans
        raise TrainingError("The processes of the training do not see the same annotations; give all the same studies.")

    def _run(self, checked: Mapping[str, Any], scans: list[AnnotatedScan], ranks: Ranks) -> dict[str, Any]:
        if not ranks.is_first:
            self._training(checked, scans, ranks, Listener()).run()
            return {}
        masks = sum(scan.mask_path is not None for scan in scans)
        logger.info("Annotated scans: %d with a final mask, %d with clicks only.", masks, len(scans) - masks)
        with closing(EventLog(self.models.trainings.events, f"{datetime.now():%Y%m%d_%H%M%S}")) as events:
            statistics = _Statistics(self.models.trainings, events)
            listener = Listener(statistics.began, statistics.reported, statistics.judged)
            self._training(checked, scans, ranks, listener).run()
        return statistics.ended()

    def _changed(self, checked: Mapping[str, Any]) -> Hyperparameters:
        changes = {name: value for name, value in checked.items() if name in Hyperparameters.model_fields}
        return self.hyperparameters.changed(changes)

    def _training(
        self, checked: Mapping[str, Any], scans: list[AnnotatedScan], ranks: Ranks, listener: Listener
    ) -> Training:
        return Training(
            scans,
            self.labels,
            self.models,
            self._changed(checked),
            self.prepared,
            ranks.device(torch.device(name_to_device(checked.get("device")))),
            pretrained=checked.get("pretrained", True),
            listener=listener,
            ranks=ranks,
        )


class _Statistics:
    """Statistics and curves of a run."""

    def __init__(self, folder: TrainingFolder, events: EventLog) -> None:
        self.path = folder.statistics
        self.curves = Curves(folder.curves)
        self.events = events
        self.start_s = time.time()
        # Replace the statistics of the previous training.
        self.stats: dict[str, Any] = {"epoch": 0, "total_epochs": REPORTS, "start_ts": int(self.start_s)}
        self._write()

    def began(self, scans: int, held_out: int) -> None:
        self._write(scans=scans, held_out=held_out)

    def reported(self, report: Report) -> None:
        value = report.step.value
        loss = value.loss.item()
        terms = {f"loss {name}": float(term) for name, term in value.terms.items()}
        self.events.metrics({"loss": loss, **terms}, report.iterations)
        picture = supervision_picture(report.step.batch.image, value.label_sets)
        if picture is not None:
            self.events.picture("geodesics", picture, report.iterations)
        self.curves.add_loss(report.iterations, loss)
        now_s = time.time() - self.start_s
        first = self.stats.get("first_report", (report.part, now_s))
        self._write(epoch=report.part, iteration=report.iterations, loss=loss, reported_s=now_s, first_report=first)

    def judged(self, verdict: Verdict, iterations: int) -> None:
        if verdict.score is not None:
            self.events.metrics({"score": verdict.score}, iterations)
            self.curves.add_score(iterations, verdict.score)
        best = {"best_metric": verdict.score} if verdict.publish and verdict.score is not None else {}
        self._write(verdict=verdict.reason, **best)

    def ended(self) -> dict[str, Any]:
        self._write(total_time=self._time())
        return self.stats

    def _write(self, **changes: object) -> None:
        self.stats |= {"current_time": self._time(), **changes}
        write_atomically(self.path, json.dumps(self.stats, indent=2).encode())

    def _time(self) -> str:
        return str(timedelta(seconds=int(time.time() - self.start_s)))


def _start_s(process: int) -> int:
    """Return the start of a process, in seconds since 1970; 0 if it has ended."""
    try:
        return int(psutil.Process(process).create_time())
    except psutil.NoSuchProcess:
        return 0


def _refuse_misspelt(request: Mapping[str, Any]) -> None:
    """Refuse names close to a hyper-parameter; viewers send other names too, which are ignored."""
    for name in request:
        near = difflib.get_close_matches(name, Hyperparameters.model_fields, n=1, cutoff=0.85)
        if near and near[0] != name:
            raise TrainingError(f"The training cannot start: there is no setting {name!r}; did you mean {near[0]!r}?")


def _checked_device(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that MONAI Label itself reads from a request.

    Raises:
        TrainingError: an option has a form that MONAI Label does not take.
    """
    checked: dict[str, Any] = {}
    device, gpus = request.get("device"), request.get("gpus")
    if device not in (None, ""):
        is_text = isinstance(device, str) and re.fullmatch(r"cpu|mps|cuda(:\d{1,2})?", device)
        if not is_text and device not in device_list():
            expected = "expected cpu, cuda or cuda:0"
            raise TrainingError(f"The training cannot start: device is {str(device)[:80]!r}; {expected}.")
        checked["device"] = device
    if gpus not in (None, ""):
        try:
            checked["gpus"] = require_gpus(gpus)
        except GPUError as error:
            raise TrainingError(f"The training cannot start: gpus: {error}.") from error
    pretrained = request.get("pretrained", True)
    if not isinstance(pretrained, bool):
        raise TrainingError(f"The training cannot start: pretrained is {str(pretrained)[:80]!r}; expected a boolean.")
    return checked | ({"pretrained": pretrained} if "pretrained" in request else {})
