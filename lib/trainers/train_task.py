"""The training task of MONAI Label: from clicks to a published network."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.networks.utils import one_hot
from monai.utils import set_determinism
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.basic_train import BasicTrainTask, Context
from monailabel.tasks.train.handler import prepare_stats
from monailabel.utils.async_tasks.utils import processes
from pydantic import ValidationError
from torch.utils.data import DataLoader

from lib.annotations.atomic_write import write_atomically
from lib.annotations.store import AnnotationStore
from lib.data.scans import AnnotatedScan, PatchBatch, patch_loader
from lib.geometry.volume import VolumeError
from lib.networks.checkpoint import TrainedModel, TrainingState, is_finite, save_checkpoint
from lib.networks.spec import PAPERS_NETWORK, ArchitectureError, NetworkSpec
from lib.networks.versions import ModelVersions
from lib.trainers.annotated_scans import TrainingError, annotated_scans, grid_spacing_mm
from lib.trainers.budget import PolyLearningRate, TrainingBudget
from lib.trainers.hyperparameters import Hyperparameters, first_error
from lib.trainers.objective import InExtremISObjective
from lib.trainers.publishing import judge
from lib.trainers.starting_point import StartingPoint
from lib.trainers.trackers import Trackers, mlflow_handler, prepare_mlflow, supervision_picture
from lib.trainers.training_record import TrainingRecord, TrainingRun

logger = logging.getLogger(__name__)


class InExtremISTrainTask(BasicTrainTask):
    """Trains end to end from extreme points (paper, Eq. 3), from the published weights if there are any.

    A run is short and sees every annotation. Its network is published if it agrees with the annotators no less than
    the published one. A run that was stopped, or whose process died, leaves the published model as it was, and the
    next goes on after its last epoch.

    Args:
        versions: the checkpoint that requests are answered with, and those before it.
        tracking: "mlflow", kept in a sqlite file beside the model, or "None".
    """

    def __init__(
        self,
        versions: ModelVersions,
        labels: tuple[str, ...],
        store: AnnotationStore,
        hyperparameters: Hyperparameters,
        tracking: str,
    ) -> None:
        self.versions = versions
        self.label_names = labels
        self.store = store
        self.hyperparameters = hyperparameters
        published_path = versions.published_path
        self.folder = published_path.parent / published_path.stem
        super().__init__(
            model_dir=str(self.folder),
            description="Learns from extreme points, in the background",
            amp=torch.cuda.is_available(),
            labels=list(labels),
            tracking=tracking,
            # MONAI refuses MLflow's default, a folder of files.
            tracking_uri=f"sqlite:///{published_path.parent / 'mlruns.db'}",
        )
        fixed = {"dataset": "TorchIO", "dataloader": "TorchIO", "multi_gpu": False, "val_split": 0.0}
        self._config.update(fixed | hyperparameters.model_dump() | {"tracking": tracking})
        for unused in ("early_stop_patience", "val_batch_size", "tracking_uri", "tracking_experiment_name", "name"):
            self._config.pop(unused)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Runs a training. Raises: SystemExit: what is wrong stands, as a sentence, at the end of the task's log."""
        try:
            return super().__call__(self._checked(request), datastore)
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
        """Only what a request may set; in particular no folder and no address.

        Raises:
            TrainingError: a hyper-parameter out of its range.
        """
        changes = {name: value for name, value in request.items() if name in Hyperparameters.model_fields}
        try:
            self.hyperparameters.changed(changes)
        except ValidationError as error:
            raise TrainingError(f"The training cannot start: {first_error(error)}") from error
        return changes | _checked_device(request)

    def _checked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request with every hyper-parameter in it, as MONAI Label's base class looks for some of them."""
        checked = self.checked_parameters(request)
        hyperparameters = self.hyperparameters.changed(
            {name: value for name, value in checked.items() if name in Hyperparameters.model_fields}
        )
        return checked | {
            **dict(hyperparameters),
            "hyperparameters": hyperparameters,
            "model": request.get("model"),  # of the server, and not of its client
            "name": "runs",
            "val_batch_size": 1,
            "tracking_uri": self._tracking_uri,
        }

    def stats(self) -> dict[str, Any]:
        """Figures for viewers, which take a record without `total_time` for that of a running training."""
        stats = super().stats() or {"epoch": 0, "total_epochs": self.hyperparameters.max_epochs}
        if not processes("train"):
            stats.setdefault("total_time", stats.get("current_time", "0:00:00"))
        return stats

    @property
    def record_path(self) -> Path:
        return self.folder / "record.json"

    @property
    def unfinished_path(self) -> Path:
        return self.folder / "unfinished.pt"

    def pre_process(self, request: Mapping[str, Any], datastore: Datastore) -> list[AnnotatedScan]:
        self.started = _now()
        scans = self.scans(datastore)
        masks = sum(scan.mask_path is not None for scan in scans)
        logger.info("Annotated scans: %d with clicks, %d with a final mask.", len(scans) - masks, masks)
        return scans

    def scans(self, datastore: Datastore) -> list[AnnotatedScan]:
        """What there is to learn from. Raises: TrainingError: nothing."""
        return annotated_scans(datastore, self.label_names)

    def partition_datalist(
        self, context: Context, shuffle: bool = False
    ) -> tuple[list[AnnotatedScan], list[AnnotatedScan]]:
        """The scans to train on. Those that are held out are for the end of the run only."""
        h: Hyperparameters = context.request["hyperparameters"]
        record = TrainingRecord.load(self.record_path)
        self.record = record.with_scans([scan.image_id for scan in context.datalist], h.held_out_share)
        # Before the first iteration: a scan that a killed run has seen must not be held out afterwards.
        self.record.save(self.record_path)
        self.held_out = [scan for scan in context.datalist if scan.image_id in self.record.held_out]
        return [scan for scan in context.datalist if scan.image_id not in self.record.held_out], []

    def network(self, context: Context) -> torch.nn.Module:
        h: Hyperparameters = context.request["hyperparameters"]
        # Each run draws other patches, or what one has seen the next would see again.
        set_determinism(h.seed + len(self.record.runs))
        self.start = StartingPoint.find(
            lambda spacing_mm: self._spec(spacing_mm, h),
            grid_spacing_mm(context.train_datalist, h.min_spacing_mm),
            self.versions.published_path,
            self.unfinished_path,
            pretrained=context.pretrained,
        )
        used_before = self.start.state.progress if self.start.state else 0.0
        self.budget = TrainingBudget(h.max_epochs, h.max_minutes, used_before)
        context.max_epochs = self.budget.epochs_left
        return self.start.network

    def _spec(self, spacing_mm: tuple[float, float, float], h: Hyperparameters) -> NetworkSpec:
        if h.network == PAPERS_NETWORK:
            return NetworkSpec.plan(self.label_names, spacing_mm, h.roi_size, h.levels, h.base_channels)
        try:
            return NetworkSpec.of_monai(self.label_names, spacing_mm, h.roi_size, h.network, h.network_arguments)
        except ArchitectureError as error:
            raise TrainingError(f"The training cannot start: {error}") from error

    def optimizer(self, context: Context) -> torch.optim.Optimizer:
        h: Hyperparameters = context.request["hyperparameters"]
        weights, decay = context.network.parameters(), h.weight_decay
        optimizer: torch.optim.Optimizer
        if h.optimizer == "sgd":
            optimizer = torch.optim.SGD(weights, h.learning_rate, h.momentum, weight_decay=decay, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(weights, h.learning_rate, weight_decay=decay)
        before = self.start.state.optimizer if self.start.state else None
        if before is not None and before["param_groups"][0].keys() == optimizer.param_groups[0].keys():
            # The moments of the run before, with the rates that are asked for now; another optimiser has others.
            optimizer.load_state_dict({**optimizer.state_dict(), "state": before["state"]})
        return optimizer

    def lr_scheduler_handler(self, context: Context) -> PolyLearningRate:
        h: Hyperparameters = context.request["hyperparameters"]
        return PolyLearningRate(context.optimizer, h.learning_rate, h.poly_power, self.budget)

    def loss_function(self, context: Context) -> torch.nn.Module:
        return InExtremISObjective(self.label_names, self.start.spec.spacing_mm, context.request["hyperparameters"])

    def train_data_loader(self, context: Context, num_workers: int = 0, shuffle: bool = True) -> DataLoader:
        h: Hyperparameters = context.request["hyperparameters"]
        return patch_loader(
            context.train_datalist,
            spacing_mm=self.start.spec.spacing_mm,
            roi_size=self.start.spec.roi_size,
            batch_size=h.train_batch_size,
            patches_per_epoch=h.iterations_per_epoch * h.train_batch_size,
            annotated_fraction=h.annotated_fraction,
            margin_voxels=h.box_margin,
            augmentation=h.augmentation,
        )

    def train_iteration_update(self, context: Context) -> Callable[[Any, PatchBatch], list[dict[str, Any]]]:
        """One step: forward, geodesics with what the network now thinks, loss, backward (paper, Section 3.2)."""
        h: Hyperparameters = context.request["hyperparameters"]

        def step(engine: Any, batch: PatchBatch) -> list[dict[str, Any]]:
            epoch = engine.state.epoch + self._iterations_before() / h.iterations_per_epoch
            guided = h.geodesic == "deep" and epoch > h.deep_start_epoch
            engine.network.train()
            engine.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(context.device.type, enabled=engine.amp):
                logits = engine.network(batch.image.to(context.device))
            progress = self.budget.used(engine.state.epoch - 1)
            value = engine.loss_function(batch, logits, guided=guided, progress=progress)
            self.last_batch = batch.image, value.target, value.terms
            if not torch.isfinite(value.loss):
                self.unfinished_path.unlink(missing_ok=True)
                raise TrainingError(f"The loss became {value.loss.item()}; try again with a lower learning_rate.")
            scaler = engine.scaler or torch.amp.GradScaler(enabled=False)
            scaler.scale(value.loss).backward()
            scaler.step(engine.optimizer)
            scaler.update()
            return _outputs(logits.detach(), value.target, value.loss.item(), value.terms)

        return step

    def train_handlers(self, context: Context) -> list[Any]:
        if context.tracking == "mlflow":
            artifacts = self.versions.published_path.parent / "mlartifacts"
            prepare_mlflow(context.tracking_uri, context.tracking_experiment_name, artifacts)
        handlers = super().train_handlers(context)
        self.trackers = Trackers(context.events_dir, mlflow_handler(handlers))
        return handlers

    def train_pre_transforms(self, context: Context) -> None:
        """Patches come ready from the loader."""

    def train_post_transforms(self, context: Context) -> None:
        """Outputs come ready from the iteration."""

    def val_inferer(self, context: Context) -> None:
        """There is no validation set of masks."""

    def _load_checkpoint(self, context: Context, train_handlers: list[Any]) -> None:
        """`network` has loaded the published weights already."""

    def finalize(self, context: Context) -> None:
        """Figures for viewers and a place to go on from after each epoch; the verdict at the end."""
        # The record of an earlier training would hide that this one has begun.
        self._write_stats({"epoch": 0, "total_epochs": context.max_epochs})
        context.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: self._after_epoch(context))
        context.trainer.add_event_handler(Events.COMPLETED, lambda engine: self._end(context))

    def _after_epoch(self, context: Context) -> None:
        self._require_finite(context.network)
        self._write_stats(self._figures(context))
        self._track(context)
        used = self.budget.used(context.trainer.state.epoch)
        if used < 1:
            version = self.start.published.version if self.start.published else 0
            model = TrainedModel(self.start.spec, context.network, version)
            save_checkpoint(self.unfinished_path, model, self._state(context, used))
        else:
            context.trainer.terminate()

    def _end(self, context: Context) -> None:
        h: Hyperparameters = context.request["hyperparameters"]
        candidate = TrainedModel(self.start.spec, context.network.eval(), self.versions.next_number())
        verdict = judge(
            candidate, self.start.published, self.held_out, context.train_datalist, h.publish_tolerance, context.device
        )
        state = self._state(context, used=0.0)
        if verdict.publish:
            self.versions.publish(replace(candidate, agreement=verdict.score), state)
            logger.info("Version %d is published. %s", candidate.version, verdict.reason)
        else:
            logger.warning("The published model stays. %s", verdict.reason)
        self.unfinished_path.unlink(missing_ok=True)
        run = TrainingRun(
            started=self.started,
            ended=_now(),
            version=candidate.version if verdict.publish else None,
            iterations=state.iterations,
            scans=len(context.train_datalist),
            judged_on=verdict.judged_on,
            score=verdict.score,
            published_score=verdict.published_score,
            loss=context.trainer.state.output[0]["loss"],
        )
        if verdict.score is not None:
            self.trackers.figures({"agreement": verdict.score}, state.iterations)
        self.record = self.record.with_run(run)
        self.record.save(self.record_path)
        self._write_stats(self._figures(context) | {"verdict": verdict.reason})

    def _require_finite(self, network: torch.nn.Module) -> None:
        """Raises: TrainingError: weights are not finite; nothing is kept that a later training would go on from."""
        if not is_finite(network):
            self.unfinished_path.unlink(missing_ok=True)
            raise TrainingError("The weights became infinite; try again with a lower learning_rate.")

    def _track(self, context: Context) -> None:
        images, targets, terms = self.last_batch
        iteration = self._iterations_before() + context.trainer.state.iteration
        self.trackers.figures({f"loss {name}": value for name, value in terms.items()}, iteration)
        if (targets > 0).any():
            self.trackers.picture("geodesics", supervision_picture(images, targets), iteration)

    def _iterations_before(self) -> int:
        return self.start.state.iterations if self.start.state else 0

    def _state(self, context: Context, used: float) -> TrainingState:
        iterations = self._iterations_before() + context.trainer.state.iteration
        return TrainingState(context.optimizer.state_dict(), iterations, used)

    def _figures(self, context: Context) -> dict[str, Any]:
        """MONAI Label's, with the agreement of the model that the last run ended with as the best metric."""
        figures = prepare_stats(context.start_ts, context.trainer, context.evaluator)
        scores = [run.score for run in self.record.runs if run.version is not None and run.score is not None]
        return figures | {
            "best_metric": scores[-1] if scores else 0.0,
            "scans": len(context.train_datalist),
            "held_out": len(self.held_out),
            "loss": context.trainer.state.output[0]["loss"],
        }

    def _write_stats(self, stats: dict[str, Any]) -> None:
        write_atomically(Path(self._stats_path), json.dumps(stats, indent=2).encode())


def _checked_device(request: Mapping[str, Any]) -> dict[str, Any]:
    """What MONAI Label itself reads of a request.

    Raises:
        TrainingError: of another form than MONAI Label takes.
    """
    forms = {
        "device": (r"cpu|mps|cuda(:\d{1,2})?", "cpu, cuda or cuda:0"),
        "gpus": (r"all|\d{1,2}(,\d{1,2}){0,15}", "all, or numbers such as 0,1"),
    }
    checked: dict[str, Any] = {}
    for name, (form, expected) in forms.items():
        value = request.get(name)
        if value in (None, ""):
            continue
        if not isinstance(value, str) or not re.fullmatch(form, value):
            raise TrainingError(f"The training cannot start: {name} is {str(value)[:80]!r}; expected {expected}.")
        checked[name] = value
    pretrained = request.get("pretrained", True)
    if not isinstance(pretrained, bool):
        raise TrainingError(f"The training cannot start: pretrained is {str(pretrained)[:80]!r}; expected a boolean.")
    return checked | ({"pretrained": pretrained} if "pretrained" in request else {})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _outputs(logits: torch.Tensor, target: torch.Tensor, loss: float, terms: dict[str, float]) -> list[dict[str, Any]]:
    """For each patch, what MONAI's handlers read; classes one-hot, and all zero where nothing is annotated."""
    annotated = (target >= 0)[:, None]
    classes = logits.shape[1]
    predicted = one_hot(logits.argmax(dim=1, keepdim=True), classes) * annotated
    label = one_hot(target.clamp(min=0)[:, None], classes) * annotated
    return [{"loss": loss, "terms": terms, "pred": p, "label": t} for p, t in zip(predicted, label, strict=True)]
