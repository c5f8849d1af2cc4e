"""Write the loss and score curves of the current training to a file, and read them in the server."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from lib.annotations.atomic_write import write_atomically

MAX_POINTS = 200

Curve = list[tuple[int, float]]
"""Pairs of iteration, counted over all trainings that led to the weights, and value."""


class Curves:
    """Loss and score of one training.

    Args:
        path: of the file; the file of the previous training is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.loss: Curve = []
        self.validation: Curve = []
        self._write()

    def add_loss(self, iteration: int, value: float) -> None:
        self.loss = thinned([*self.loss, (iteration, value)])
        self._write()

    def add_score(self, iteration: int, value: float) -> None:
        self.validation = thinned([*self.validation, (iteration, value)])
        self._write()

    def _write(self) -> None:
        content = {"loss": self.loss, "validation": self.validation}
        write_atomically(self._path, json.dumps(content).encode(), durable=False)


def read_curves(path: Path) -> dict[str, list[list[float]]]:
    """Read the points [iteration, value] of `loss` and `validation`; empty if the file cannot be read."""
    try:
        content = json.loads(path.read_bytes())
        return {name: [_point(point) for point in content[name]] for name in ("loss", "validation")}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {"loss": [], "validation": []}


def thinned(curve: Curve) -> Curve:
    """Drop every second point, but not the last, if there are more than `MAX_POINTS`."""
    return curve if len(curve) <= MAX_POINTS else [*curve[:-1:2], curve[-1]]


def _point(point: Sequence[float]) -> list[float]:
    iteration, value = int(point[0]), float(point[1])
    if not math.isfinite(value):
        raise ValueError("a value that is not finite")
    return [iteration, value]
