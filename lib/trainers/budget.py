"""How long a training runs, and the learning rate on the way."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from ignite.engine import Engine, Events


@dataclass
class TrainingBudget:
    """Epochs or minutes, whichever are used up first.

    Attributes:
        max_epochs: at least 1.
        max_minutes: more than 0, or 0 for as long as the epochs take.
        used_before: share of the budget, in [0, 1), that an interrupted part of the same training has used.
    """

    max_epochs: int
    max_minutes: float
    used_before: float = 0.0
    _start: float = field(default_factory=lambda: time.monotonic())

    @property
    def epochs_left(self) -> int:
        """At least 1, counted from the beginning of this part."""
        return max(1, round((1 - self.used_before) * self.max_epochs))

    def used(self, epochs: int) -> float:
        """Share of the budget that is used after so many epochs of this part, in [0, 1]."""
        minutes = (time.monotonic() - self._start) / 60
        of_minutes = minutes / self.max_minutes if self.max_minutes > 0 else 0.0
        return min(1.0, self.used_before + max(epochs / self.max_epochs, of_minutes))


class PolyLearningRate:
    """The poly schedule over the budget (paper, Section 4): (1 - used)^power of the initial learning rate.

    It begins anew with each training, which starts from weights that the last one has led to rest: a warm restart
    (Loshchilov and Hutter, SGDR, ICLR 2017). A training that was interrupted goes on in its own schedule.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, initial: float, power: float, budget: TrainingBudget) -> None:
        self.optimizer = optimizer
        self.initial = initial
        self.power = power
        self.budget = budget

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        rate = self.initial * (1 - self.budget.used(engine.state.epoch - 1)) ** self.power
        for group in self.optimizer.param_groups:
            group["lr"] = rate
