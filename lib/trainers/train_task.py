"""The training task of MONAI Label: from clicks to a published network."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler
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
from lib.annotations.volume import VolumeError
from lib.data.scans import AnnotatedScan, PatchBatch, patch_loader
from lib.networks.checkpoint import CheckpointError, TrainedModel, load_checkpoint, save_checkpoint
from lib.networks.spec import PAPERS_NETWORK, ArchitectureError, NetworkSpec
from lib.trainers.annotated_scans import TrainingError, annotated_scans, grid_spacing_mm
from lib.trainers.hyperparameters import Hyperparameters, first_error
from lib.trainers.objective import InExtremISObjective

logger = logging.getLogger(__name__)


class InExtremISTrainTask(BasicTrainTask):
    """Trains end to end from extreme points (paper, Eq. 3), from the published weights if there are any.

    Args:
        published_path: of the checkpoint that requests are answered with.
        tracking: "mlflow", kept in a sqlite file beside the model, or "None".
    """

    def __init__(
        self,
        published_path: Path,
        labels: tuple[str, ...],
        store: AnnotationStore,
        hyperparameters: Hyperparameters,
        tracking: str,
    ) -> None:
        self.published_path = published_path
        self.label_names = labels
        self.store = store
        self.hyperparameters = hyperparameters
        super().__init__(
            model_dir=str(published_path.parent / published_path.stem),
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
        return changes | {name: request[name] for name in ("model", "device", "gpus", "pretrained") if name in request}

    def _checked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request with every hyper-parameter in it, as MONAI Label's base class looks for some of them."""
        checked = self.checked_parameters(request)
        hyperparameters = self.hyperparameters.changed(
            {name: value for name, value in checked.items() if name in Hyperparameters.model_fields}
        )
        return checked | {
            **dict(hyperparameters),
            "hyperparameters": hyperparameters,
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

    def pre_process(self, request: Mapping[str, Any], datastore: Datastore) -> list[AnnotatedScan]:
        scans = annotated_scans(datastore, self.store, self.label_names)
        masks = sum(scan.mask_path is not None for scan in scans)
        logger.info(
            "Learning from %d scans: %d with clicks, %d with a final mask.", len(scans), len(scans) - masks, masks
        )
        return scans

    def network(self, context: Context) -> torch.nn.Module:
        hyperparameters: Hyperparameters = context.request["hyperparameters"]
        set_determinism(hyperparameters.seed)
        spec = self._spec(context.train_datalist, hyperparameters)
        previous = self._previous(spec) if context.pretrained else None
        self.version = previous.version if previous else 0
        self.spec = previous.spec if previous else spec
        return previous.network if previous else spec.build()

    def _spec(self, scans: list[AnnotatedScan], h: Hyperparameters) -> NetworkSpec:
        spacing_mm = grid_spacing_mm(scans, h.min_spacing_mm)
        if h.network == PAPERS_NETWORK:
            return NetworkSpec.plan(self.label_names, spacing_mm, h.roi_size, h.levels, h.base_channels)
        try:
            return NetworkSpec.of_monai(self.label_names, spacing_mm, h.roi_size, h.network, h.network_arguments)
        except ArchitectureError as error:
            raise TrainingError(f"The training cannot start: {error}") from error

    def _previous(self, spec: NetworkSpec) -> TrainedModel | None:
        try:
            model = load_checkpoint(self.published_path)
        except FileNotFoundError:
            return None
        except CheckpointError as error:
            logger.error("%s The training starts from nothing.", error)
            return None
        if model.spec.labels != spec.labels or not _same_weights(model.network, spec.build()):
            logger.warning("The published model has other labels or another network; the training starts from nothing.")
            return None
        return model

    def optimizer(self, context: Context) -> torch.optim.Optimizer:
        h: Hyperparameters = context.request["hyperparameters"]
        return torch.optim.SGD(
            context.network.parameters(),
            h.learning_rate,
            momentum=h.momentum,
            weight_decay=h.weight_decay,
            nesterov=True,
        )

    def lr_scheduler_handler(self, context: Context) -> LrScheduleHandler:
        h: Hyperparameters = context.request["hyperparameters"]
        schedule = torch.optim.lr_scheduler.PolynomialLR(context.optimizer, h.max_epochs, h.poly_power)
        return LrScheduleHandler(schedule, print_lr=False)  # type: ignore[arg-type]

    def loss_function(self, context: Context) -> InExtremISObjective:
        return InExtremISObjective(self.label_names, self.spec.spacing_mm, context.request["hyperparameters"])

    def train_data_loader(self, context: Context, num_workers: int = 0, shuffle: bool = True) -> DataLoader:
        h: Hyperparameters = context.request["hyperparameters"]
        return patch_loader(
            context.train_datalist,
            spacing_mm=self.spec.spacing_mm,
            roi_size=self.spec.roi_size,
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
            guided = h.geodesic == "deep" and (self.version > 0 or engine.state.epoch > h.deep_start_epoch)
            engine.network.train()
            engine.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(context.device.type, enabled=engine.amp):
                logits = engine.network(batch.image.to(context.device))
            value = engine.loss_function(batch, logits, guided=guided)
            if not torch.isfinite(value.loss):
                raise TrainingError(f"The loss became {value.loss.item()}; try again with a lower learning_rate.")
            scaler = engine.scaler or torch.amp.GradScaler(enabled=False)
            scaler.scale(value.loss).backward()
            scaler.step(engine.optimizer)
            scaler.update()
            return _outputs(logits.detach(), value.target, value.loss.item(), value.terms)

        return step

    def train_handlers(self, context: Context) -> list[Any]:
        terms = TensorBoardStatsHandler(
            log_dir=context.events_dir, tag_name="train_loss", output_transform=lambda outputs: outputs[0]["terms"]
        )
        return [*super().train_handlers(context), terms]

    def train_pre_transforms(self, context: Context) -> None:
        """Patches come ready from the loader."""

    def train_post_transforms(self, context: Context) -> None:
        """Outputs come ready from the iteration."""

    def val_inferer(self, context: Context) -> None:
        """There is no validation set of masks."""

    def _load_checkpoint(self, context: Context, train_handlers: list[Any]) -> None:
        """`network` has loaded the published weights already."""

    def finalize(self, context: Context) -> None:
        """Figures for viewers after each epoch, the model at the end; an interrupted run publishes nothing."""
        # The record of an earlier training would hide that this one has begun.
        self._write_record({"epoch": 0, "total_epochs": context.max_epochs})
        context.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: self._write_stats(context))
        context.trainer.add_event_handler(Events.COMPLETED, lambda engine: self._publish(context))

    def _write_stats(self, context: Context) -> None:
        stats = prepare_stats(context.start_ts, context.trainer, context.evaluator)
        stats["scans"] = len(context.train_datalist)
        stats["loss"] = context.trainer.state.output[0]["loss"]
        self._write_record(stats)

    def _write_record(self, stats: dict[str, Any]) -> None:
        write_atomically(Path(self._stats_path), json.dumps(stats, indent=2).encode())

    def _publish(self, context: Context) -> None:
        model = TrainedModel(self.spec, context.network, self.version + 1)
        save_checkpoint(self.published_path, model)
        logger.info("Published version %d, learnt from %d scans.", model.version, len(context.train_datalist))


def _same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether the weights of one fit into the other."""
    return [(n, p.shape) for n, p in first.named_parameters()] == [(n, p.shape) for n, p in second.named_parameters()]


def _outputs(logits: torch.Tensor, target: torch.Tensor, loss: float, terms: dict[str, float]) -> list[dict[str, Any]]:
    """For each patch, what MONAI's handlers read; classes one-hot, and all zero where nothing is annotated."""
    annotated = (target >= 0)[:, None]
    classes = logits.shape[1]
    predicted = one_hot(logits.argmax(dim=1, keepdim=True), classes) * annotated
    label = one_hot(target.clamp(min=0)[:, None], classes) * annotated
    return [{"loss": loss, "terms": terms, "pred": p, "label": t} for p, t in zip(predicted, label, strict=True)]
