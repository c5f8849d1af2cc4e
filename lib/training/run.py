"""Run a training, from annotated scans to a published network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from lib.data.annotated_scan import AnnotatedScan
from lib.data.augmentation import Axes
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.image_geometry import Spacing
from lib.networks.checkpoint import TrainedModel, TrainingState, is_finite, save_checkpoint
from lib.training.budget import TrainingBudget, make_optimizer
from lib.training.build import plan_network, training_batches, training_volumes, weighted_click_masks
from lib.training.gate import PublishGate, Verdict
from lib.training.grid_plan import plan_spacing
from lib.training.hyperparameters import Hyperparameters
from lib.training.loop import DivergedError, Step, TrainingError, train
from lib.training.model_folder import ModelFolder
from lib.training.objective import InExtremISObjective
from lib.training.orientation import symmetric_axes
from lib.training.publisher import Publisher
from lib.training.ranks import ALONE, Ranks
from lib.training.record import TrainingRecord, TrainingRun
from lib.training.starting_point import StartingPoint
from lib.training.structures import StructureExtremes, structure_extremes

REPORTS = 20
"""Number of parts of a run; after each, metrics are reported and the state is stored."""


@dataclass(frozen=True)
class Report:
    """Progress of a run.

    Attributes:
        part: number of the part, up to `REPORTS`.
        iterations: total number in all trainings that led to the weights.
        step: last step.
    """

    part: int
    iterations: int
    step: Step


@dataclass
class Listener:
    """Callbacks of a run, which do nothing by default."""

    began: Callable[[int, int], None] = lambda scans, held_out: None
    reported: Callable[[Report], None] = lambda report: None
    judged: Callable[[Verdict, int], None] = lambda verdict, iterations: None


@dataclass
class Training:
    """Training on annotated scans, from the published network if there is one; publishes candidates that are not worse.

    A run that is stopped, or whose process dies, leaves the published model unchanged; the next run resumes from its
    last report. All ranks get the same scans; the first rank writes files, scores and calls the listener.

    Attributes:
        scans: all annotated scans.
        labels: names in order of their index 1, 2, ...
        models: published network, its versions, and the state and record of trainings.
        h: the hyper-parameters.
        prepared: cache of scans on the network's grid.
        pretrained: False to start from an untrained network.
        objective: loss to minimise; by default `InExtremISObjective`, over all ranks.
        ranks: processes that train together, each with its own device.
    """

    scans: Sequence[AnnotatedScan]
    labels: tuple[str, ...]
    models: ModelFolder
    h: Hyperparameters
    prepared: PreparedScans
    device: torch.device
    pretrained: bool = True
    objective: Callable[[Sequence[str], tuple[float, float, float], Hyperparameters], nn.Module] | None = None
    listener: Listener = field(default_factory=Listener)
    ranks: Ranks = ALONE

    def run(self) -> TrainingRun:
        """Train, and return the finished run.

        Raises:
            TrainingError: no scan is annotated, the training diverged, or another training of this folder runs.
            VolumeError: no scan can be read.
            OSError: a file cannot be written.
            torch.OutOfMemoryError: the device has too little memory.
            LostRankError: another rank has ended; the state of the last report remains.
        """
        if not self.ranks.is_first:
            return self._run()
        self.models.trainings.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.models.trainings.lock, timeout=0):
                return self._run()
        except Timeout as error:
            raise TrainingError("Another training of this project runs; wait for its end, or stop it.") from error

    def _run(self) -> TrainingRun:
        started = _now()
        self.record = self._begun_record()
        held_out = [scan for scan in self.scans if scan.image_id in self.record.held_out]
        trained_on = [scan for scan in self.scans if scan.image_id not in self.record.held_out]
        if not trained_on:
            raise TrainingError("There is nothing to learn from: no study has extreme points or a final mask yet.")
        self.listener.began(len(trained_on), len(held_out))
        # Each run draws other patches than the one before.
        seed = self.h.seed + self.record.begun - 1
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        torch.backends.cudnn.benchmark = True
        budget = TrainingBudget(self.h.iterations, self.h.max_minutes)
        structures = structure_extremes(trained_on, self.labels)
        start = self._start(trained_on, structures)
        if not self.ranks.is_first:
            self._train(start, trained_on, symmetric_axes(structures), seed, budget)
            return TrainingRecord.from_bytes(self.ranks.bytes_of_first(None)).runs[-1]
        budget.used_before = start.state.progress if start.state else 0.0
        gate = PublishGate(
            held_out, trained_on, self.labels, self.models.versions, self.prepared, self.h.box_margin, self.device
        )
        publisher = Publisher(gate, self.models.versions, start, budget, self.listener.judged)
        try:
            step = self._train(start, trained_on, symmetric_axes(structures), seed, budget, publisher)
        except DivergedError:
            self.models.trainings.unfinished.unlink(missing_ok=True)
            raise
        self.models.trainings.unfinished.unlink(missing_ok=True)
        verdict = publisher.verdict
        assert verdict is not None
        run = TrainingRun(
            started=started,
            ended=_now(),
            version=publisher.published,
            iterations=self._iterations(start, step),
            scans=len(trained_on),
            judged_on=verdict.judged_on,
            score=verdict.score,
            published_score=verdict.published_score,
            loss=step.value.loss.item(),
        )
        self.record = self.record.with_run(run)
        self.record.save(self.models.trainings.record)
        self.ranks.bytes_of_first(self.record.to_bytes())
        return run

    def _begun_record(self) -> TrainingRecord:
        """Add this training and its scans to the record of the project."""
        content = None
        if self.ranks.is_first:
            record = TrainingRecord.load(self.models.trainings.record)
            record = record.with_scans([scan.image_id for scan in self.scans], self.h.held_out_share).begin()
            # Saved before the first iteration: a scan that a killed run was trained on must not be held out later.
            record.save(self.models.trainings.record)
            content = record.to_bytes()
        return TrainingRecord.from_bytes(self.ranks.bytes_of_first(content))

    def _start(self, scans: Sequence[AnnotatedScan], structures: Sequence[StructureExtremes]) -> StartingPoint:
        """Return the starting point of the first rank: the published version may change at any time."""
        if not self.ranks.is_first:
            return StartingPoint.from_bytes(self.ranks.bytes_of_first(None))
        start = StartingPoint.find(
            lambda spacing_mm: plan_network(scans, self.labels, spacing_mm, self.h),
            plan_spacing(scans, structures, self.h),
            self.models.published,
            self.models.trainings.unfinished,
            pretrained=self.pretrained,
        )
        if self.ranks.size > 1:
            self.ranks.bytes_of_first(start.to_bytes())
        return start

    def _train(
        self,
        start: StartingPoint,
        scans: Sequence[AnnotatedScan],
        symmetric: Axes,
        seed: int,
        budget: TrainingBudget,
        publisher: Publisher | None = None,
    ) -> Step:
        """Train to the end of the budget; the first rank, which has a publisher, also reports and publishes."""
        network, ranks = start.network.to(self.device), self.ranks
        optimizer = self._optimizer(network, start)
        volumes, h = self._volumes(scans, start.spec.spacing_mm)
        make = self.objective or partial(InExtremISObjective, ranks=ranks)
        objective = make(self.labels, start.spec.spacing_mm, h)
        batches = training_batches(scans, volumes, start.spec, symmetric, h, self.device, seed, ranks)
        reported = 0
        for step in train(network, optimizer, batches, objective, h, budget, self.device, ranks):
            if publisher is None:
                continue
            part, ended, is_due = int(step.used * REPORTS), step.used >= 1, publisher.is_due()
            is_new = ended or part > reported
            if not (is_new or is_due):
                continue
            require_finite(network)
            state = TrainingState(optimizer.state_dict(), self._iterations(start, step), step.used)
            if is_new:
                reported = part
                self.listener.reported(Report(part, state.iterations, step))
            if is_due or ended:
                publisher.consider(network, replace(state, progress=0.0))
            if not ended:
                save_checkpoint(
                    self.models.trainings.unfinished, TrainedModel(start.spec, network, publisher.base), state
                )
        return step

    def _volumes(self, scans: Sequence[AnnotatedScan], spacing_mm: Spacing) -> tuple[ScanVolumes, Hyperparameters]:
        """Make the volumes on the network's grid, with click masks if their weight is not 0.

        The first rank makes the files that the others then read.
        """
        with self.ranks.first_before_others():
            learns = self.ranks.is_first
            volumes = training_volumes(
                scans, self.prepared, self.labels, spacing_mm, self.h, self.models.trainings, learns=learns
            )
            return weighted_click_masks(scans, volumes, self.labels, self.h)

    def _optimizer(self, network: nn.Module, start: StartingPoint) -> torch.optim.Optimizer:
        """Make the optimiser, with the moments of the starting point and the rates of the hyper-parameters."""
        optimizer = make_optimizer(network, self.h)
        before = start.state.optimizer if start.state else None
        if before is not None and before["param_groups"][0].keys() == optimizer.param_groups[0].keys():
            optimizer.load_state_dict({**optimizer.state_dict(), "state": before["state"]})
        return optimizer

    def _iterations(self, start: StartingPoint, step: Step) -> int:
        return (start.state.iterations if start.state else 0) + step.iteration


def require_finite(network: nn.Module) -> None:
    """Raise DivergedError if a weight is not finite."""
    if not is_finite(network):
        raise DivergedError("The weights became infinite; try again with a lower learning_rate.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
