"""The mask of six clicks beside the automatic one, while the network learns, and what correcting clicks bring.

Run with `python -m benchmarks.click_stages --out FOLDER`. The studies were never clicked before; scripted clicks have
an error, and each correcting click is in the middle of what is most wrong.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.click_mask import deepest
from benchmarks.publishing import CLICKED, UNSEEN, trained_snapshots
from benchmarks.training_runs import LABEL, Dataset
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.walkthrough import dice
from lib.geometry.volume import Volume, load_volume
from lib.infers.extreme_points import network_trust
from lib.infers.prediction import predict_probability
from lib.networks.checkpoint import TrainedModel
from lib.refinement.automatic_mask import label_map
from lib.refinement.cold_start import segment_from_clicks
from lib.trainers.validation import agreement

EPOCHS = (1, 4, 8, 12)
ERRORS_VOXELS = (0.0, 1.0, 2.0)
CORRECTIONS = 4


def corrected(
    volume: Volume, truth: np.ndarray, points: ExtremePoints, probability: np.ndarray | None, trust: float
) -> Iterator[float]:
    """Dice after 0, 1, ... correcting clicks; the last again where nothing is left to correct."""
    spacing_mm = volume.geometry.spacing_mm
    for _ in range(CORRECTIONS + 1):
        mask = segment_from_clicks(volume.array, points, spacing_mm, foreground_probability=probability, trust=trust)
        yield dice(mask, truth)
        missed, leaked = (deepest(wrong, spacing_mm) for wrong in (truth & ~mask, mask & ~truth))
        foreground, background = points.foreground_voxel, points.background_voxel
        if missed is not None and (leaked is None or (truth & ~mask).sum() >= (mask & ~truth).sum()):
            foreground = np.concatenate([foreground, missed[None]])
        elif leaked is not None:
            background = np.concatenate([background, leaked[None]])
        points = ExtremePoints.from_clicks(LABEL, foreground, background)


def measure(dataset: Dataset, study: str, models: dict[int, TrainedModel], scores: dict[tuple, list[float]]) -> None:
    """Adds the Dice of one study to `scores`, by (epoch or None, method, error of the hand)."""
    volume, truth = load_volume(dataset.folder / "studies" / f"{study}.nii.gz"), dataset.truth(study)
    probabilities = {epoch: predict_probability(model, volume) for epoch, model in models.items()}
    for epoch, probability in probabilities.items():
        scores[epoch, "automatic", None].append(dice(label_map(probability) > 0, truth))
    for error in ERRORS_VOXELS:
        rng = np.random.default_rng(int(study[-2:]))
        points = ExtremePoints.from_clicks(LABEL, simulated_extreme_points(truth, rng, error))
        for number, value in enumerate(corrected(volume, truth, points, None, 0.0)):
            scores[None, number, error].append(value)
        for epoch, model in models.items():
            trust = network_trust(model)
            for number, value in enumerate(corrected(volume, truth, points, probabilities[epoch][0], trust)):
                scores[epoch, number, error].append(value)
            mask = segment_from_clicks(
                volume.array, points, volume.geometry.spacing_mm, foreground_probability=probabilities[epoch][0]
            )
            scores[epoch, "full trust", error].append(dice(mask, truth))


def table(error: float, models: dict[int, TrainedModel], scores: dict[tuple, list[float]]) -> Table:
    corrections = [f"+{n} correcting" for n in range(1, CORRECTIONS + 1)]
    found = Table(title=f"Dice, hand's error {error:g} voxels")
    for heading in ("network", "agreement", "automatic", "six clicks", "six, full trust", *corrections):
        found.add_column(heading)

    def cell(*key: object) -> str:
        return f"{np.mean(scores[key]):.3f}" if key in scores else ""

    for epoch in (None, *models):
        counts = [cell(epoch, n, error) for n in range(CORRECTIONS + 1)]
        name = "none" if epoch is None else f"after {epoch} epochs"
        trust = "" if epoch is None else f"{models[epoch].agreement:.2f}"
        automatic, full = cell(epoch, "automatic", None), cell(epoch, "full trust", error)
        found.add_row(name, trust, automatic, counts[0], full, *counts[1:])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.click_stages", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the studies")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    dataset = Dataset(options.out.resolve() / "demo", CLICKED, UNSEEN)
    studies = dataset.make()
    snapshots, held_out = trained_snapshots(dataset, seed=0)
    models = {}
    for epoch in EPOCHS:
        model = snapshots[epoch - 1]
        models[epoch] = TrainedModel(model.spec, model.network, epoch, agreement(model, held_out))
    scores: dict[tuple, list[float]] = defaultdict(list)
    for study in track(studies[CLICKED:], "Studies"):
        measure(dataset, study, models, scores)
    for error in ERRORS_VOXELS:
        Console().print(table(error, models, scores))


if __name__ == "__main__":
    main()
