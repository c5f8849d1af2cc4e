"""How the choices of the training show in the Dice of studies that were never clicked.

Run with `python -m benchmarks.training_study STUDY --out FOLDER`; a run that was cut short goes on from there.
Scripted clicks have an error of one voxel, and every training is that of the CPU preset with the changes named.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.training_runs import Dataset, dice_of_training, mean_dice

STUDIES: dict[str, list[dict[str, Any]]] = {
    "deep_term": [
        {"geodesic": "gradient"},
        {"geodesic": "gradient_euclidean"},
        *({"geodesic": "deep", "deep_start_epoch": epoch} for epoch in (0, 4, 8)),
    ],
    "crf": [
        {"crf_weight": 0},
        {"crf_weight": 1e-4, "sigma_beta": 0.05},
        {"crf_weight": 1e-3, "sigma_beta": 0.05},
        {"crf_weight": 1e-3, "sigma_beta": 0.5},
        {"crf_weight": 1e-2, "sigma_beta": 0.5},
    ],
    "optimizer": [
        {"optimizer": optimizer, "learning_rate": rate, "max_epochs": epochs}
        for epochs in (12, 30)
        for optimizer, rate in (("sgd", 0.01), ("adamw", 0.002))
    ],
    # About the same time each.
    "grid": [
        {"min_spacing_mm": 1},
        {"min_spacing_mm": 0, "roi_size": "64x64x24"},
        {"min_spacing_mm": 0, "roi_size": "112x112x32", "train_batch_size": 1, "max_epochs": 6},
    ],
    "augmentation": [{"augmentation": augmentation} for augmentation in ("none", "flip", "full")],
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_study", description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", type=Path, required=True, help="folder of the studies and the results")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each choice (default: %(default)s)")
    parser.add_argument("--clicked", type=int, default=10, help="studies that are clicked (default: %(default)s)")
    parser.add_argument("--unseen", type=int, default=8, help="studies that are scored (default: %(default)s)")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    dataset = Dataset(options.out.resolve() / "demo", options.clicked, options.unseen)
    # Seed by seed, so that all choices can be compared early.
    jobs = [(choice, seed) for seed in range(options.seeds) for choice in range(len(STUDIES[options.study]))]
    results: dict[int, list[dict[str, Any]]] = {}
    for choice, seed in track(jobs, "Trainings"):
        changes = {**STUDIES[options.study][choice], "seed": seed}
        results.setdefault(choice, []).append(dice_of_training(dataset, changes, options.out / "results"))
    Console().print(_table(options.study, results))


def _table(study: str, results: dict[int, list[dict[str, Any]]]) -> Table:
    table = Table("changes", "Dice", "seconds a training", title=study)
    for choice, runs in results.items():
        changes = ", ".join(f"{name} {value}" for name, value in STUDIES[study][choice].items())
        mean, deviation = mean_dice(runs)
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        table.add_row(changes, f"{mean:.3f} ({deviation:.3f} between seeds)", f"{seconds:.0f}")
    return table


if __name__ == "__main__":
    main()
