"""Measure whether correcting the worst proposals first trains a better network.

Run with `python -m benchmarks.proposal_order --dataset FOLDER --out OUT`. Of each seed, a network learns from a few
full masks; its proposals of a pool of scans are ordered by their quality estimate, worst first, or by chance; the
first ones are corrected (their full masks are given), and the network goes on. Scores are of the validation cases and
of training cases outside of the pool. A run that was cut short goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from scipy.stats import wilcoxon

from benchmarks.evidence.dataset import Dataset
from benchmarks.evidence.training import write_mask
from lib.annotations.atomic_write import write_atomically
from lib.data.annotated_scan import AnnotatedScan
from lib.data.grid import network_image
from lib.data.prepared_scans import PreparedScans
from lib.geometry.volume import load_volume
from lib.inference.prediction import label_map_on_scan, predict_label_map, predict_on_grid
from lib.inference.quality import mask_quality
from lib.metrics import dice
from lib.networks.checkpoint import TrainedModel, load_checkpoint
from lib.training.hyperparameters import Hyperparameters
from lib.training.model_folder import ModelFolder
from lib.training.run import Training

ORDERS = ("random", "worst proposal")
ROUNDS, STEP, POOL_SHARE = 2, 4, 2 / 3


class Study:
    """The trainings of one seed."""

    def __init__(self, dataset: Dataset, out: Path, seed: int, h: Hyperparameters) -> None:
        self.dataset, self.out, self.h = dataset, out, h.changed({"seed": seed, "held_out_share": 0})
        self.rng = np.random.default_rng(seed)
        cases = self.rng.permutation(dataset.cases["training"]).tolist()
        n_pool = round(POOL_SHARE * len(cases))
        self.pool = cases[:n_pool]
        self.scored = [*cases[n_pool:], *dataset.cases["validation"]]

    def scores(self) -> dict[str, list[float]]:
        """By order, the mean Dice after the first masks and after each round."""
        first = self.out / "first"
        shutil.rmtree(self.out, ignore_errors=True)
        start = self._train(first, self.pool[:STEP])
        found = {}
        for order in ORDERS:
            folder, masked = self.out / order, self.pool[:STEP]
            shutil.copytree(first, folder)
            model, scores = start, [self._score(start)]
            for _ in range(ROUNDS):
                left = [case for case in self.pool if case not in masked]
                masked = masked + self._ordered(order, model, left)[:STEP]
                model = self._train(folder, masked)
                scores.append(self._score(model))
            found[order] = scores
        return found

    def _ordered(self, order: str, model: TrainedModel, cases: list[str]) -> list[str]:
        if order == "random":
            return [str(case) for case in self.rng.permutation(cases)]
        return sorted(cases, key=lambda case: self._quality(model, case))

    def _quality(self, model: TrainedModel, case: str) -> float:
        volume = load_volume(self.dataset.image_path(case))
        voxels, affine = network_image(volume, model.spec.spacing_mm)
        probability = predict_on_grid(model, voxels)
        mask = label_map_on_scan(probability, affine, volume.geometry)
        return mask_quality(model, voxels, probability, mask, mask)

    def _train(self, folder: Path, cases: list[str]) -> TrainedModel:
        models = ModelFolder(folder)
        scans = [self._scan(case) for case in cases]
        prepared = PreparedScans(self.out.parent / "prepared")
        device = torch.device("cpu")
        Training(scans, self.dataset.labels, models, self.h, prepared, device).run()
        return load_checkpoint(models.published)

    def _scan(self, case: str) -> AnnotatedScan:
        path = self.out.parent / "masks" / f"{case}.nii.gz"
        if not path.exists():
            truth = self.dataset.truth(case)
            write_mask(path, truth.array, truth.geometry)
        return self.dataset.annotated_scan(case, mask_path=path)

    def _score(self, model: TrainedModel) -> float:
        volumes = [load_volume(self.dataset.image_path(case)) for case in self.scored]
        masks = [predict_label_map(model, volume) > 0 for volume in volumes]
        truths = [self.dataset.truth(case).array > 0 for case in self.scored]
        return float(np.mean([dice(mask, truth) for mask, truth in zip(masks, truths, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proposal_order", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/, masks/ and split.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the models")
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=150, help="of each training (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dataset = Dataset.open(options.dataset.resolve())
    h = Hyperparameters.of_preset("cpu").changed({"iterations": options.iterations, "max_minutes": 0})
    found = []
    for seed in range(options.seeds):
        path = options.out / f"{seed}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            scores = Study(dataset, options.out / str(seed), seed, h).scores()
            write_atomically(path, json.dumps(scores).encode())
        found.append(json.loads(path.read_text()))
        print(seed, found[-1], flush=True)
    for after in range(1, ROUNDS + 1):
        random, worst = (np.array([scores[order][after] for scores in found]) for order in ORDERS)
        p = wilcoxon(worst, random).pvalue if np.any(worst != random) else 1.0
        print(
            f"{STEP * (after + 1)} masks, {len(found)} seeds: Dice {random.mean():.3f} by chance, {worst.mean():.3f} "
            f"worst proposal first (better in {np.sum(worst > random)}, Wilcoxon p {p:.2f})"
        )


if __name__ == "__main__":
    main()
