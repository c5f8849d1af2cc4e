"""Limit how long a training runs, and schedule its learning rate."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from lib.training.hyperparameters import Hyperparameters


@dataclass
class TrainingBudget:
    """Limit of iterations and minutes, whichever is reached first.

    Attributes:
        iterations: at least 1.
        max_minutes: more than 0, or 0 for no limit of time.
        used_before: share of the budget, in [0, 1), that an interrupted part of the same training has used.
    """

    iterations: int
    max_minutes: float = 0.0
    used_before: float = 0.0
    _start: float = field(default_factory=lambda: time.monotonic())
    _reserved_s: float = 0.0

    def reserve(self, seconds: float) -> None:
        """Reserve time for scoring after the last iteration."""
        self._reserved_s = seconds

    def used(self, iterations: int) -> float:
        """Return the share of the budget, in [0, 1], used after a number of iterations of this part."""
        minutes = (time.monotonic() - self._start + self._reserved_s) / 60
        of_minutes = minutes / self.max_minutes if self.max_minutes > 0 else 0.0
        return min(1.0, self.used_before + max(iterations / self.iterations, of_minutes))


def learning_rate(h: Hyperparameters, iteration: int, used: float) -> float:
    """Compute the poly schedule over the budget (paper, Section 4): (1 - used)^power of the initial rate.

    Each training restarts the schedule from the published weights: a warm restart (Loshchilov and Hutter, SGDR,
    ICLR 2017). A linear warm-up protects these weights from the first steps, whose moment estimates are inaccurate.

    Args:
        iteration: of this training, from 0.
        used: share of its budget, in [0, 1].
    """
    warm_up = min(1.0, (iteration + 1) / (h.warm_up_iterations + 1))
    return warm_up * h.learning_rate * (1 - used) ** h.poly_power


def make_optimizer(network: torch.nn.Module, h: Hyperparameters) -> torch.optim.Optimizer:
    """Make the optimiser of the hyper-parameters, without momentum."""
    weights, decay = network.parameters(), h.weight_decay
    if h.optimizer == "sgd":
        nesterov = h.momentum > 0
        return torch.optim.SGD(weights, h.learning_rate, h.momentum, weight_decay=decay, nesterov=nesterov)
    return torch.optim.AdamW(weights, h.learning_rate, weight_decay=decay)
