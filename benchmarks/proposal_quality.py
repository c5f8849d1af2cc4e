"""Measure the rank correlation between the quality estimate of proposals and their true Dice.

Run with `python -m benchmarks.proposal_quality --dataset FOLDER --model FILE`, where FILE is a published model that has
learnt from the training split only, such as `python -m benchmarks.repeated_training` leaves.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.evidence.dataset import SPLITS, Dataset
from lib.data.grid import network_image
from lib.geometry.volume import load_volume
from lib.inference.automatic_mask import refined_on_scan
from lib.inference.prediction import label_map_on_scan, predict_on_grid
from lib.inference.quality import mask_quality
from lib.metrics import dice
from lib.networks.checkpoint import TrainedModel, load_checkpoint

DRAWS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proposal_quality", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/, masks/ and split.csv")
    parser.add_argument("--model", type=Path, required=True, help="file of the model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset, model = Dataset.open(options.dataset.resolve()), load_checkpoint(options.model)
    cases = [case for split in SPLITS[1:] for case in dataset.cases[split]]
    found = np.array([_quality_and_dice(dataset, model, case) for case in cases])
    correlation = spearmanr(found[:, 0], found[:, 1]).statistic
    rng = np.random.default_rng(0)
    draws = [spearmanr(*found[rng.integers(0, len(found), len(found)), :2].T).statistic for _ in range(DRAWS)]
    low, high = np.nanpercentile(draws, [5, 95])
    print(
        f"{len(cases)} unseen scans, Dice {found[:, 1].mean():.3f} ({found[:, 1].min():.2f} to {found[:, 1].max():.2f})"
        f": Spearman {correlation:.2f} (90 % of draws {low:.2f} to {high:.2f}); the estimate takes "
        f"{found[:, 2].mean():.2f} s a scan, the mask {found[:, 3].mean():.2f} s."
    )


def _quality_and_dice(dataset: Dataset, model: TrainedModel, case: str) -> tuple[float, float, float, float]:
    """Return the estimate, its time in seconds, and the mask."""
    volume = load_volume(dataset.image_path(case))
    start = time.perf_counter()
    voxels, affine = network_image(volume, model.spec.spacing_mm)
    probability = predict_on_grid(model, voxels)
    mask = drawn = label_map_on_scan(probability, affine, volume.geometry)
    if model.crf:
        mask = refined_on_scan(drawn, probability, affine, volume)
    masked = time.perf_counter()
    quality = mask_quality(model, voxels, probability, drawn, mask)
    return quality, dice(mask > 0, dataset.truth(case).array > 0), time.perf_counter() - masked, masked - start


if __name__ == "__main__":
    main()
