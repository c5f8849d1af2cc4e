"""Measure the rank correlation between the score of clicks and the true Dice of networks.

Run with `python -m benchmarks.gate_score --dataset FOLDER`. Three networks learn from clicks as the app does, from
clicks by the paper's objective, and from full masks; on the way, each is judged on cases that none of them learns from,
by their clicks and by their masks.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.evidence.dataset import LABEL, Dataset
from benchmarks.evidence.training import write_mask
from benchmarks.training_speed import TimedTraining
from lib.data.annotated_scan import AnnotatedScan
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.networks.checkpoint import TrainedModel
from lib.training.hyperparameters import Hyperparameters
from lib.training.scan_score import scan_score

CHECKPOINTS = 10
FIRST_ITERATION = 20
JUDGED_ON = 16
"""Number of cases: those of the validation split, filled up from the training split."""

TRAININGS: dict[str, tuple[bool, dict[str, Any]]] = {
    "the app, clicks": (True, {}),
    "the paper, clicks": (True, {"method": "paper"}),
    "full masks": (False, {}),
}
"""Whether each trains on clicks, and its differences from the preset."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_score", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--iterations", type=int, default=300, help="of each training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = Dataset.open(options.dataset.resolve())
    console, table = Console(), Table("training", "iteration", "score of the clicks", "Dice")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in TRAININGS:
            for iteration, score, dice in figures(dataset, name, options.iterations, options.seed, Path(folder)):
                found.append((score, dice))
                table.add_row(name, str(iteration), f"{score:.3f}", f"{dice:.3f}")
                console.print(f"{name}, iteration {iteration}: score {score:.3f}, Dice {dice:.3f}")
    console.print(table)
    print(f"Spearman's rank correlation over {len(found)} networks: {spearmanr(*zip(*found, strict=True))[0]:.3f}")


def figures(dataset: Dataset, name: str, iterations: int, seed: int, folder: Path) -> list[tuple[int, float, float]]:
    """Return iteration, mean score of the clicks and mean Dice of each checkpoint of a training."""
    by_clicks, changes = TRAININGS[name]
    h = Hyperparameters.of_preset("cpu").changed({**changes, "seed": seed, "iterations": iterations})
    learnt, judged = _cases(dataset, seed)
    prepared, device = PreparedScans(folder / "prepared"), torch.device("cpu")
    scans = [_clicked(dataset, case) if by_clicks else _masked(dataset, case, folder) for case in learnt]
    asked = [(_clicked(dataset, case), _masked(dataset, case, folder)) for case in judged]
    torch.manual_seed(seed)
    training = TimedTraining.on(scans, (LABEL,), h, prepared, device)
    volumes = ScanVolumes(prepared, training.spec.spacing_mm)
    marks = {int(n) for n in np.geomspace(min(FIRST_ITERATION, iterations), iterations, CHECKPOINTS)}
    result = []
    for step in training.steps(iterations):
        if step.iteration in marks:
            model = TrainedModel(training.spec, training.network.eval(), 1)
            scores = [[scan_score(model, scan, volumes, h.box_margin) for scan in pair] for pair in asked]
            training.network.train()
            result.append((step.iteration, *np.mean(scores, axis=0).tolist()))
    return result


def _cases(dataset: Dataset, seed: int) -> tuple[Sequence[str], Sequence[str]]:
    """Training and test cases."""
    drawn = np.random.default_rng(seed).permutation(dataset.cases["training"]).tolist()
    validation = list(dataset.cases["validation"])[:JUDGED_ON]
    missing = min(JUDGED_ON - len(validation), len(drawn) // 2)
    return drawn[missing:], validation + drawn[:missing]


def _clicked(dataset: Dataset, case: str) -> AnnotatedScan:
    return dataset.annotated_scan(case, dataset.annotations(case, "annotator"))


def _masked(dataset: Dataset, case: str, folder: Path) -> AnnotatedScan:
    """All values of the mask are the one label."""
    path, truth = folder / "masks" / f"{case}.nii.gz", dataset.truth(case)
    write_mask(path, truth.array, truth.geometry)
    return dataset.annotated_scan(case, mask_path=path)


if __name__ == "__main__":
    main()
