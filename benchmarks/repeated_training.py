"""Measure unseen scans after further trainings on the same annotations.

Run with `python -m benchmarks.repeated_training --dataset FOLDER --out OUT`. Each training goes on from the published
network as in the app, with scans held out for the gate; after each, the published network segments the cases of the
validation and test splits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.demo_trainings import DEVICE, clicked_scans
from benchmarks.evidence.dataset import Dataset
from lib.data.prepared_scans import PreparedScans
from lib.geometry.volume import load_volume
from lib.inference.prediction import predict_label_map
from lib.metrics import dice
from lib.networks.checkpoint import load_checkpoint
from lib.training.hyperparameters import Hyperparameters
from lib.training.model_folder import ModelFolder
from lib.training.run import Training


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repeated_training", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; one that is there goes on")
    parser.add_argument("--trainings", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="of each (default: those of the preset)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = Dataset.open(options.dataset.resolve())
    scans = clicked_scans(dataset)
    models = ModelFolder(options.out / "model")
    minutes = {} if options.minutes is None else {"max_minutes": options.minutes}
    h = Hyperparameters.of_preset("auto").changed({"seed": options.seed, **minutes})
    prepared = PreparedScans(options.out / "prepared")
    for number in range(1, options.trainings + 1):
        run = Training(scans, dataset.labels, models, h, prepared, DEVICE).run()
        published = f"version {run.version}" if run.version else "none is published"
        scores = f"score {_text(run.score)}, best before {_text(run.published_score)}, on {run.judged_on[0]} scans"
        print(f"Training {number}: {published} ({scores}). {_unseen(dataset, models)}", flush=True)


def _unseen(dataset: Dataset, models: ModelFolder) -> str:
    """Describe the Dice of the published network in a sentence."""
    model, means, every = load_checkpoint(models.published, DEVICE), [], []
    for split in ("validation", "test"):
        found: list[float] = []
        for case in dataset.cases[split]:
            mask = predict_label_map(model, load_volume(dataset.image_path(case)), DEVICE)
            found.append(dice(mask > 0, dataset.truth(case).array > 0))
        means.append(f"{np.mean(found):.3f} ({split})")
        every += found
    return f"Mean Dice of {len(every)} unseen scans: {np.mean(every):.3f}; {', '.join(means)}."


def _text(score: float | None) -> str:
    return "none" if score is None else f"{score:.3f}"


if __name__ == "__main__":
    main()
