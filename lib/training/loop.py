"""Run the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from lib.data.patches import PatchBatch
from lib.networks.precision import mixed_precision
from lib.training.budget import TrainingBudget, learning_rate
from lib.training.hyperparameters import Hyperparameters
from lib.training.objective import ObjectiveValue
from lib.training.ranks import ALONE, Ranks

Objective = Callable[[PatchBatch, torch.Tensor], ObjectiveValue]


class TrainingError(RuntimeError):
    """The training cannot run or continue; the message is for the user."""


class DivergedError(TrainingError):
    """The logits, the loss or the weights are not finite; the state of the run is unusable."""


@dataclass(frozen=True)
class Step:
    """Result of an iteration.

    Attributes:
        iteration: number in this training, from 1.
        used: share of the budget, in [0, 1].
    """

    iteration: int
    used: float
    batch: PatchBatch
    value: ObjectiveValue


def train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[PatchBatch],
    objective: Objective,
    h: Hyperparameters,
    budget: TrainingBudget,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Iterator[Step]:
    """Train for at least one step, until the budget is used up. Yield each step.

    The time of the caller between two steps counts for the budget.

    Args:
        batches: batches of this rank.
        objective: loss of a batch and its logits, normalised over all ranks.
        budget: limit of the training; that of the first rank is used.
        ranks: processes that train together.

    Raises:
        DivergedError: the logits or the loss are not finite.
        LostRankError: another rank has ended.
    """
    network.to(device).to(memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
    distributed = ranks.distributed(network, device)
    batch = next(batches)
    x, y, z = batch.image.shape[2:]
    precision = mixed_precision(device, network, (x, y, z)) if h.mixed_precision else None
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    iteration, used = 0, ranks.of_first(budget.used(0))
    while iteration == 0 or used < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(h, iteration, used)
        optimizer.zero_grad(set_to_none=True)
        image = batch.image.to(device, non_blocking=True).to(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, precision, enabled=precision is not None):
            logits = distributed(image)
        _require_finite("output of the network", logits.detach().sum(dtype=torch.float32), ranks)
        value = objective(batch, logits)
        _require_finite("loss", value.loss, ranks)
        with ranks.lost_rank_errors():
            scaler.scale(value.loss).backward()
        scaler.unscale_(optimizer)
        if h.gradient_clip > 0:
            nn.utils.clip_grad_norm_(network.parameters(), h.gradient_clip)
        scaler.step(optimizer)
        scaler.update()
        iteration += 1
        used = ranks.of_first(budget.used(iteration))
        yield Step(iteration, used, batch, value)
        if used < 1:
            batch = next(batches)


def _require_finite(name: str, value: torch.Tensor, ranks: Ranks) -> None:
    """Raise DivergedError on all ranks if the value of one is not finite."""
    first = ranks.first_true(not bool(torch.isfinite(value)))
    if first is not None:
        found = value.item() if first == ranks.rank else "infinite, or no number, in another process"
        raise DivergedError(f"The {name} became {found}; try again with a lower learning_rate.")
