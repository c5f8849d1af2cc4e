"""Click, train and segment through a running server, as an annotator does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.geometry.volume import load_volume
from lib.metrics import dice

LABEL = "lesion"
POLL_S = 1.0


class TrainingFailedError(RuntimeError):
    """Error of a training that ended without a model; its text ends with the training's messages."""


@dataclass
class Outcome:
    """Server's answers for one study: masks (X, Y, Z) bool, None without a mask."""

    study: str
    truth: np.ndarray
    clicks_voxel: np.ndarray | None = None
    click_mask: np.ndarray | None = None
    click_seconds: float | None = None
    automatic_before: np.ndarray | None = None
    automatic_after: np.ndarray | None = None

    def dice(self, mask: np.ndarray | None) -> float | None:
        """Return the Dice with the truth; None without a mask."""
        return None if mask is None else dice(mask, self.truth)


class ScriptedAnnotator:
    """Simulated annotator with the client of the Slicer plugin, over HTTP."""

    def __init__(self, url: str, scratch: Path) -> None:
        self.client = MONAILabelClient(url, tmpdir=str(scratch), client_id="scripted annotator")

    def click(self, outcome: Outcome, rng: np.random.Generator) -> None:
        """Click the six extreme points of the true lesion, and store the mask in the answer."""
        outcome.clicks_voxel = simulated_extreme_points(outcome.truth, rng)
        start = time.perf_counter()
        outcome.click_mask = self._mask("extreme_points", outcome.study, {LABEL: outcome.clicks_voxel.tolist()})
        outcome.click_seconds = time.perf_counter() - start

    def segment(self, study: str) -> np.ndarray:
        """Request the automatic mask.

        Raises:
            MONAILabelClientException: there is no trained model.
        """
        return self._mask("inextremis", study, {})

    def segment_if_trained(self, study: str) -> np.ndarray | None:
        """Request the automatic mask; None without a trained model."""
        try:
            return self.segment(study)
        except MONAILabelClientException as error:
            if "Status: 409" in error.msg:
                return None
            raise

    def train(self, parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Start a training and yield the server's figures until it is done.

        Raises:
            TrainingFailedError: it ended in an error or was stopped.
        """
        self.client.train_start("inextremis", dict(parameters))
        while (task := self.client.train_status(check_if_running=False))["status"] in ("SUBMITTED", "RUNNING"):
            yield self.client.info()["train_stats"]["inextremis"]
            time.sleep(POLL_S)
        if task["status"] != "DONE":
            raise TrainingFailedError("\n".join([f"The training ended as {task['status']}:", *task["details"]]))
        yield self.client.info()["train_stats"]["inextremis"]

    def _mask(self, model: str, study: str, parameters: dict[str, Any]) -> np.ndarray:
        path, _ = self.client.infer(model, study, {**parameters, "result_extension": ".nii.gz"})
        mask = load_volume(path).array > 0
        Path(path).unlink()
        return mask


def read_truth(truth_dir: Path, study: str) -> Outcome:
    return Outcome(study, load_volume(truth_dir / f"{study}.nii.gz").array > 0)


def write_scores(path: Path, outcomes: list[Outcome]) -> None:
    """Write the scores as JSON."""
    scores = [
        {
            "study": o.study,
            "click_mask": o.dice(o.click_mask),
            "click_seconds": o.click_seconds,
            "automatic_before": o.dice(o.automatic_before),
            "automatic_after": o.dice(o.automatic_after),
        }
        for o in outcomes
    ]
    path.write_text(json.dumps(scores, indent=1))


def walk_through(
    annotator: ScriptedAnnotator,
    outcomes: list[Outcome],
    clicked: int,
    training: Mapping[str, Any],
    *,
    say: Callable[[str], None],
    show_training: Callable[[Iterator[dict[str, Any]]], None],
) -> None:
    """Click in the first `clicked` studies, train, and segment all of them; the results are in `outcomes`.

    Args:
        training: hyper-parameters that differ from the server's.
    """
    rng = np.random.default_rng(0)
    for outcome in outcomes:
        outcome.automatic_before = annotator.segment_if_trained(outcome.study)
    for outcome in outcomes[:clicked]:
        annotator.click(outcome, rng)
        say(f"{outcome.study}: six clicks, mask after {outcome.click_seconds:.1f} s")
    show_training(annotator.train(training))
    for outcome in outcomes:
        outcome.automatic_after = annotator.segment(outcome.study)
        say(f"{outcome.study}: segmented without clicks")
