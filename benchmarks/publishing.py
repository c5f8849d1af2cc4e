"""By which figure to tell the better network where there are only clicks: how each follows the true Dice.

Run with `python -m benchmarks.publishing --out FOLDER`; a run that was cut short goes on from there. The networks are
those after each epoch of trainings with the CPU preset. The figures are of the studies that were held out of them:
the agreement that decides in the app, and the validation loss of the paper. The truth is the Dice of studies that
were never clicked. Scripted clicks have an error of one voxel.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib.data.scans import AnnotatedScan, patch_loader
from lib.trainers.validation import agreement
from monai.utils import set_determinism
from monailabel.tasks.train.basic_train import Context
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.training_runs import LABEL, Dataset, dice_of_model
from lib.annotations.atomic_write import write_atomically
from lib.networks.checkpoint import TrainedModel
from lib.networks.versions import ModelVersions
from lib.server.open_studies import open_studies
from lib.trainers.background import yield_to_annotators
from lib.trainers.train_task import InExtremISTrainTask
from lib.training.hyperparameters import Hyperparameters
from lib.training.objective import InExtremISObjective

CLICKED, UNSEEN = 10, 8
VALIDATION_PATCHES = 32


class SnapshotTrainTask(InExtremISTrainTask):
    """Keeps the network of each epoch."""

    def finalize(self, context: Context) -> None:
        self.snapshots: list[TrainedModel] = []
        super().finalize(context)

    def _after_epoch(self, context: Context) -> None:
        network = copy.deepcopy(context.network).eval()
        self.snapshots.append(TrainedModel(self.start.spec, network, len(self.snapshots) + 1))
        super()._after_epoch(context)


def trained_snapshots(dataset: Dataset, seed: int) -> tuple[list[TrainedModel], list[AnnotatedScan]]:
    """The networks after each epoch of a training, and the scans that were held out of it."""
    yield_to_annotators()
    h = Hyperparameters.of_preset("cpu").changed({"seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        versions = ModelVersions(Path(folder) / "inextremis.pt")
        trainer = SnapshotTrainTask(versions, (LABEL,), dataset.store, h, tracking="None")
        trainer({"model": "inextremis"}, open_studies(str(dataset.folder / "studies"), (LABEL,), None))
    return trainer.snapshots, trainer.held_out


def measure(dataset: Dataset, seed: int) -> list[dict[str, float]]:
    """The figures after each epoch of one training."""
    studies = dataset.make()
    models, held_out = trained_snapshots(dataset, seed)
    h = Hyperparameters.of_preset("cpu")
    return [
        {
            "agreement": agreement(model, held_out) or 0.0,
            "validation loss": validation_loss(model, held_out, h),
            "dice": float(np.mean(dice_of_model(dataset, model, studies[dataset.clicked :]))),
        }
        for model in track(models, f"Seed {seed}")
    ]


def validation_loss(model: TrainedModel, scans: Sequence[AnnotatedScan], h: Hyperparameters) -> float:
    """The objective of the training on patches of scans that it did not see, the same for every network."""
    set_determinism(0)
    loader = patch_loader(
        scans,
        spacing_mm=model.spec.spacing_mm,
        roi_size=model.spec.roi_size,
        batch_size=h.train_batch_size,
        patches_per_epoch=VALIDATION_PATCHES,
        annotated_fraction=h.annotated_fraction,
        margin_voxels=h.box_margin,
        augmentation="none",
    )
    objective = InExtremISObjective((LABEL,), model.spec.spacing_mm, h)
    with torch.inference_mode():
        return float(np.mean([objective(batch, model.network(batch.image), guided=True).loss for batch in loader]))


def follows(figures: Sequence[dict[str, float]], name: str, better: int) -> tuple[float, float, float]:
    """Spearman's rank correlation with the Dice, and what comes of comparing every two networks of a training.

    Returns:
        The correlation; the share of pairs whose order is right; the mean fall of Dice where it is wrong.
    """
    dice, figure = (np.array([row[column] for row in figures]) for column in ("dice", name))
    pairs = [(i, j) for i, j in itertools.combinations(range(len(figures)), 2) if dice[i] != dice[j]]
    falls = [abs(dice[j] - dice[i]) for i, j in pairs if (dice[j] > dice[i]) != (better * (figure[j] - figure[i]) >= 0)]
    wrong_by = float(np.mean(falls)) if falls else 0.0
    return better * float(spearmanr(figure, dice).statistic), 1 - len(falls) / len(pairs), wrong_by


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publishing", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the studies and the results")
    parser.add_argument("--seeds", type=int, default=3, help="trainings (default: %(default)s)")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    dataset = Dataset(options.out.resolve() / "demo", CLICKED, UNSEEN)
    runs: list[list[dict[str, Any]]] = []
    for seed in range(options.seeds):
        path = options.out / "publishing" / f"seed={seed}.json"
        if not path.exists():
            write_atomically(path, json.dumps(measure(dataset, seed), indent=1).encode())
        runs.append(json.loads(path.read_text()))
    table = Table(title="networks after each epoch, figures of the held-out studies against Dice of unseen ones")
    for heading in ("figure", "rank correlation", "pairs in the right order", "mean error of the others, Dice"):
        table.add_column(heading)
    for name, better in (("agreement", 1), ("validation loss", -1)):
        columns = zip(*[follows(run, name, better) for run in runs], strict=True)
        table.add_row(name, *(f"{np.mean(column):.2f} ({min(column):.2f} to {max(column):.2f})" for column in columns))
    Console().print(table)


if __name__ == "__main__":
    main()
