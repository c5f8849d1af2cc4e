"""Measure the speed of a training, and the parts of an iteration."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import repeat
from typing import ParamSpec, TypeVar

import torch
from torch import nn

from lib.data.annotated_scan import AnnotatedScan
from lib.data.patches import PatchBatch
from lib.data.prepared_scans import PreparedScans
from lib.networks.checkpoint import TrainedModel
from lib.networks.spec import NetworkSpec
from lib.training.budget import TrainingBudget, make_optimizer
from lib.training.build import plan_network, training_batches, training_volumes
from lib.training.grid_plan import plan_spacing
from lib.training.hyperparameters import Hyperparameters
from lib.training.loop import Step, train
from lib.training.objective import InExtremISObjective
from lib.training.orientation import symmetric_axes
from lib.training.structures import structure_extremes

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

LOADING, NETWORK, GEODESICS, LOSS = "loading", "network, forward", "geodesics", "Dice and cross-entropy"
CRF, CLICK_MASKS, REST = "CRF term", "click masks", "backward and step"
WARM_UP = 3


class Clock:
    """Seconds spent in named parts; a part inside another counts to that one.

    Args:
        device: whose work is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._is_running = False

    def timed(self, name: str, function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """Return the function, wrapped to add its time to a part."""

        @wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            if self._is_running:
                return function(*args, **kwargs)
            self._is_running, start = True, self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += self.now() - start
                self._is_running = False

        return call

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@dataclass
class TimedTraining:
    """A training as the app runs it, without what comes between iterations.

    Attributes:
        preparing_s: mean seconds to prepare a scan: its image on the network's grid, and its click masks.
    """

    spec: NetworkSpec
    network: nn.Module
    objective: InExtremISObjective
    batches: Iterator[PatchBatch]
    h: Hyperparameters
    device: torch.device
    preparing_s: float

    @classmethod
    def on(
        cls,
        scans: Sequence[AnnotatedScan],
        labels: tuple[str, ...],
        h: Hyperparameters,
        prepared: PreparedScans,
        device: torch.device,
    ) -> TimedTraining:
        """Prepare all scans. Raises: VolumeError: one cannot be read."""
        torch.backends.cudnn.benchmark = True
        structures = structure_extremes(scans, labels)
        spacing_mm = plan_spacing(scans, structures, h)
        spec = plan_network(scans, labels, spacing_mm, h)
        volumes = training_volumes(scans, prepared, labels, spacing_mm, h)
        start = time.perf_counter()
        for scan in scans:
            volumes.image(scan)
            volumes.click_mask(scan)
        preparing_s = (time.perf_counter() - start) / len(scans)
        batches = training_batches(scans, volumes, spec, symmetric_axes(structures), h, device)
        objective = InExtremISObjective(labels, spacing_mm, h)
        return cls(spec, spec.build(), objective, batches, h, device, preparing_s)

    @property
    def model(self) -> TrainedModel:
        return TrainedModel(self.spec, self.network.eval(), 1)

    def iterations_per_s(self, most_s: float, most_iterations: int | None = None) -> float:
        """Trains for a while; the first iterations do not count."""
        count, seconds = _advance(self.steps(), most_s, most_iterations)
        return count / seconds

    def seconds_of_parts(self, most_s: float, most_iterations: int | None = None) -> dict[str, float]:
        """Mean seconds of an iteration by part. The clock slows this and what follows."""
        clock = Clock(self.device)
        self.batches = map(clock.timed(LOADING, next), repeat(self.batches))
        parts = [
            (self.network, "forward", NETWORK),
            (self.objective, "label_sets", GEODESICS),
            (self.objective.partial_loss, "terms_by_patch", LOSS),
            (self.objective.crf_loss, "forward", CRF),
            (self.objective, "_click_mask_terms", CLICK_MASKS),
        ]
        for owner, method, name in parts:
            setattr(owner, method, clock.timed(name, getattr(owner, method)))
        count, seconds = _advance(self.steps(), most_s, most_iterations, clock)
        clock.seconds[REST] = seconds - sum(clock.seconds.values())
        return {
            name: clock.seconds[name] / count for name in (LOADING, NETWORK, GEODESICS, LOSS, CRF, CLICK_MASKS, REST)
        }

    def steps(self, iterations: int = 1_000_000) -> Iterator[Step]:
        optimizer = make_optimizer(self.network.to(self.device), self.h)
        budget = TrainingBudget(iterations)
        return train(self.network, optimizer, self.batches, self.objective, self.h, budget, self.device)


def _advance(
    steps: Iterator[Step], most_s: float, most_iterations: int | None, clock: Clock | None = None
) -> tuple[int, float]:
    """Run iterations after the warm-up, at least one, and return their number and seconds."""
    for _ in range(WARM_UP):
        next(steps)
    if clock is not None:
        clock.seconds.clear()
    start = time.perf_counter()
    for count, _ in enumerate(steps, start=1):
        seconds = time.perf_counter() - start
        if seconds >= most_s or count == most_iterations:
            break
    return count, seconds
