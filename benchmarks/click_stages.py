"""Masks of six clicks beside automatic ones, by networks of shorter and longer trainings, and correcting clicks.

Run with `python -m benchmarks.click_stages --out FOLDER`. The scored studies were never clicked before; scripted clicks
have an error, and each correcting click lies deepest in what is most wrong.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.demo_trainings import clicked_scans, demo_dataset, trained_model
from benchmarks.evidence.clicking import scores
from benchmarks.evidence.dataset import LABEL, Dataset
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.clickmask.click_mask import segment_from_clicks
from lib.clickmask.label_map import BoxedMask
from lib.geometry.boxes import Box
from lib.geometry.volume import Volume, load_volume
from lib.inference.automatic_mask import label_map
from lib.inference.click_label_map import click_mask, network_prior_weight
from lib.inference.prediction import predict_probability
from lib.metrics import dice
from lib.networks.checkpoint import TrainedModel
from lib.trainers.background import yield_to_annotators
from lib.training.hyperparameters import Hyperparameters

CLICKED, UNSEEN = 10, 8
ITERATIONS = (25, 100, 400, 800)
ERRORS_VOXELS = (0.0, 1.0, 2.0)
CORRECTIONS = 4

Scores = Mapping[tuple[int | None, int | str, float | None], list[float]]
"""Dice of each study, by the iterations of the training or None without a network, the method, and the hand's error."""


def corrected(
    volume: Volume, truth: np.ndarray, points: ExtremePoints, probability: np.ndarray | None, prior_weight: float
) -> Iterator[float]:
    """Dice after 0, 1, ... correcting clicks; the last again where nothing is left to correct."""

    def segment(volume: Volume, points: ExtremePoints) -> BoxedMask:
        seen = None if probability is None else lambda label, box: probability[box.slices]
        return click_mask(volume, points, seen, prior_weight)

    whole = Box((0, 0, 0), volume.geometry.shape)
    return (score.dice for score in scores(segment, volume, points, (whole, truth), CORRECTIONS))


def measure(dataset: Dataset, case: str, models: Mapping[int, TrainedModel], scores: Scores) -> None:
    """Adds the Dice of one study to `scores`."""
    volume, truth = load_volume(dataset.image_path(case)), dataset.truth(case).array > 0
    probabilities = {length: predict_probability(model, volume) for length, model in models.items()}
    for length, probability in probabilities.items():
        scores[length, "automatic", None].append(dice(label_map(probability) > 0, truth))
    for error in ERRORS_VOXELS:
        rng = np.random.default_rng(list(case.encode()))
        points = ExtremePoints.from_clicks(LABEL, simulated_extreme_points(truth, rng, error))
        for number, value in enumerate(corrected(volume, truth, points, None, 0.0)):
            scores[None, number, error].append(value)
        for length, model in models.items():
            foreground = probabilities[length][0]
            for number, value in enumerate(corrected(volume, truth, points, foreground, network_prior_weight(model))):
                scores[length, number, error].append(value)
            mask = segment_from_clicks(
                volume.array, points, volume.geometry.spacing_mm, foreground_probability=foreground
            )
            scores[length, "full weight", error].append(dice(mask, truth))


def table(error: float, models: Mapping[int, TrainedModel], scores: Scores) -> Table:
    corrections = [f"+{n}" for n in range(1, CORRECTIONS + 1)]
    found = Table(title=f"Dice, hand's error {error:g} voxels; +n: after n correcting clicks")
    for heading in ("iterations", "score", "automatic", "clicks", "full weight", *corrections):
        found.add_column(heading)

    def cell(length: int | None, method: int | str, error: float | None) -> str:
        values = scores.get((length, method, error))
        return "" if values is None else f"{np.mean(values):.3f}"

    for length in (None, *models):
        counts = [cell(length, n, error) for n in range(CORRECTIONS + 1)]
        name, score = ("none", "") if length is None else (str(length), f"{models[length].score or 0:.2f}")
        automatic, full = cell(length, "automatic", None), cell(length, "full weight", error)
        found.add_row(name, score, automatic, counts[0], full, *counts[1:])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.click_stages", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the studies and the networks")
    parser.add_argument("--iterations", type=int, nargs="+", default=ITERATIONS, help="of each training")
    parser.add_argument("--clicked", type=int, default=CLICKED, help="studies to train on (default: %(default)s)")
    parser.add_argument("--unseen", type=int, default=UNSEEN, help="studies for the Dice (default: %(default)s)")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    yield_to_annotators()
    out = options.out.resolve()
    dataset = demo_dataset(out / f"demo,{options.clicked}+{options.unseen}", options.clicked, options.unseen)
    models = {}
    for length in track(options.iterations, "Trainings"):
        h = Hyperparameters.of_preset("cpu").changed({"iterations": length, "max_minutes": 0})
        models[length] = trained_model(clicked_scans(dataset), dataset.labels, dataset.folder / str(length), h)
    scores: Scores = defaultdict(list)
    for case in track(dataset.cases["test"], "Studies"):
        measure(dataset, case, models, scores)
    for error in ERRORS_VOXELS:
        Console().print(table(error, models, scores))


if __name__ == "__main__":
    main()
