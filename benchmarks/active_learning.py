"""Which scan to annotate next: the loop of annotating and training replayed, strategies against each other.

Run with `python -m benchmarks.active_learning --out FOLDER`; a run that was cut short goes on with the round after the
last. Demo studies; an annotator's clicks have an error of one voxel. A loop begins with two scans by chance, the same
for all strategies of a seed; each round trains from the published network on, with the CPU preset on a coarser grid,
and has two more scans annotated. The Dice is the mean of studies that are in no loop. "full masks" has true masks of
scans by chance instead of clicks: as many as take about the annotation time of all rounds of clicks, and as many
iterations.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.demo_trainings import demo_dataset, dice_of_cases
from benchmarks.evidence.dataset import LABEL, SUFFIX, Dataset
from benchmarks.evidence.rows import CLICKS_S, MASK_S
from lib.activelearning.scores import UncertaintyScores
from lib.activelearning.strategies import strategies
from lib.activelearning.uncertainty import class_entropies
from lib.annotations.atomic_write import write_atomically
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.masks import MaskRecord
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation
from lib.data.grid import network_image
from lib.data.prepared_scans import PreparedScans
from lib.geometry.volume import load_volume
from lib.inference.prediction import predict_on_grid
from lib.networks.checkpoint import TrainedModel, load_checkpoint
from lib.networks.versions import ModelVersions
from lib.server.open_studies import open_studies
from lib.server.studies import Studies
from lib.trainers.background import yield_to_annotators
from lib.trainers.train_task import InExtremISTrainTask
from lib.training.hyperparameters import Hyperparameters

CLICK_ERROR_VOXELS = 1.0
GRID = {"min_spacing_mm": 1.5, "roi_size": "40x40x32"}
"""One grid whichever scans are annotated, with patches as large as a scan."""

STRATEGIES = ("random", "uncertainty")
MASKS = "full masks"
START, STEP = 2, 2


@dataclass(frozen=True)
class Sizes:
    """How much is replayed.

    Attributes:
        pool: studies to choose from.
        unseen: studies for the Dice.
        rounds: trainings of a loop of clicks.
        iterations: of each training.
    """

    pool: int
    unseen: int
    rounds: int
    iterations: int

    @property
    def mask_rounds(self) -> int:
        return max(1, round((START + STEP * (self.rounds - 1)) * CLICKS_S / MASK_S))


class Loop:
    """One strategy with one seed, in a folder of its own.

    Attributes:
        results: of each round: `scans`, annotated so far; `seconds`, annotation time; `dice`, of each unseen study.
    """

    def __init__(self, dataset: Dataset, sizes: Sizes, strategy: str, seed: int, folder: Path) -> None:
        self.dataset, self.sizes, self.strategy, self.seed = dataset, sizes, strategy, seed
        self.folder = folder / f"{strategy.replace(' ', '-')},seed={seed}"
        self.studies = self._open_pool()
        self.versions = ModelVersions(self.folder / "model" / "inextremis.pt")
        self.results_path = self.folder / "rounds.json"
        self.results: list[dict[str, Any]] = (
            json.loads(self.results_path.read_text()) if self.results_path.exists() else []
        )

    @property
    def rounds(self) -> int:
        return self.sizes.mask_rounds if self.strategy == MASKS else self.sizes.rounds

    def run_round(self) -> None:
        """Annotates, trains and measures; where it is cut short, it is done anew from its choice on."""
        chosen = self._chosen()
        for study in chosen:
            self._annotate(study)
        start = time.perf_counter()
        self._train()
        training_s = time.perf_counter() - start
        model = load_checkpoint(self.versions.published_path)
        scans = [*(self.results[-1]["scans"] if self.results else []), *chosen]
        result = {
            "scans": scans,
            "seconds": len(scans) * (MASK_S if self.strategy == MASKS else CLICKS_S),
            "dice": dice_of_cases(self.dataset, model, self.dataset.cases["test"]),
            "version": model.version,
            "training_s": round(training_s, 1),
        }
        self.results.append(result)
        write_atomically(self.results_path, json.dumps(self.results, indent=1).encode())

    def begin_like(self, other: Loop) -> None:
        """Takes the first round of another loop over: it is the same for every strategy that clicks."""
        for name in ("model", "studies/labels"):
            shutil.copytree(other.folder / name, self.folder / name, dirs_exist_ok=True)
        self.results = list(other.results)
        write_atomically(self.results_path, json.dumps(self.results, indent=1).encode())

    def _chosen(self) -> list[str]:
        """The choice of a round, kept so that a round that is done anew does not choose others."""
        path = self.folder / f"choice-{len(self.results)}.json"
        if not path.exists():
            write_atomically(path, json.dumps(self._choose()).encode())
        chosen: list[str] = json.loads(path.read_text())
        return chosen

    def _choose(self) -> list[str]:
        first = len(self.results) == 0
        by = "random" if first or self.strategy == MASKS else self.strategy
        # The first two scans of a seed are the same for every strategy; later draws differ from round to round.
        seed = 1000 * self.seed + len(self.results)
        scores = UncertaintyScores(self.folder / "uncertainty.json")
        if by == "uncertainty":
            self._score(scores, load_checkpoint(self.versions.published_path))
        strategy = strategies(scores, [LABEL], seed)[by]
        count = 1 if self.strategy == MASKS else START if first else STEP
        return [strategy({"strategy": by}, self.studies)["id"] for _ in range(count)]

    def _score(self, scores: UncertaintyScores, model: TrainedModel) -> None:
        scores.begin(model.version)
        for study in self.studies.get_unlabeled_images():
            image, _ = network_image(load_volume(self.studies.get_image_uri(study)), model.spec.spacing_mm)
            entropies = class_entropies(predict_on_grid(model, image).numpy())
            scores.add(model.version, study, dict(zip(model.spec.labels, entropies.tolist(), strict=True)))

    def _annotate(self, study: str) -> None:
        if self.strategy == MASKS:
            truth = self.dataset.truth(study)
            self.studies.masks().save(study, truth, MaskRecord({LABEL: 1}, "scripted annotator"))
            return
        # The same hand for the same study, whichever strategy chose it.
        rng, truth = np.random.default_rng([self.seed, *study.encode()]), self.dataset.truth(study)
        clicks = simulated_extreme_points(truth.array > 0, rng, CLICK_ERROR_VOXELS)
        points = ExtremePoints.from_clicks(LABEL, clicks)
        self.studies.clicks.save(Annotation.now(study, points, truth.geometry, "scripted annotator"))

    def _train(self) -> None:
        # As many iterations for the same annotation time: the first mask takes that of all rounds of clicks.
        iterations = self.sizes.iterations * (self.sizes.rounds if self.strategy == MASKS else 1)
        changes = {"iterations": iterations, "max_minutes": 0, "held_out_share": 0, "seed": self.seed, **GRID}
        h = Hyperparameters.of_preset("cpu").changed(changes)
        prepared = PreparedScans(self.dataset.folder / "prepared")
        trainer = InExtremISTrainTask(self.versions, (LABEL,), prepared, h, tracking="None")
        trainer({"model": "inextremis"}, self.studies)

    def _open_pool(self) -> Studies:
        studies = self.folder / "studies"
        studies.mkdir(parents=True, exist_ok=True)
        for study in self.dataset.cases["training"]:
            if not (studies / f"{study}{SUFFIX}").exists():
                shutil.copy(self.dataset.image_path(study), studies)
        return open_studies(str(studies), (LABEL,), None)


def replay(loops: Sequence[Loop], console: Console) -> None:
    """All rounds that are missing, one of each loop in turn, so that a run that is cut short compares equal rounds."""
    with Progress(console=console) as progress:
        task = progress.add_task("Rounds", total=sum(loop.rounds for loop in loops))
        progress.advance(task, sum(len(loop.results) for loop in loops))
        for number in range(max(loop.rounds for loop in loops)):
            for loop in loops:
                if len(loop.results) == number < loop.rounds:
                    twin = next((o for o in loops if o.seed == loop.seed and o.strategy == "random"), loop)
                    if loop.strategy == "uncertainty" and number == 0 and len(twin.results) == 1:
                        loop.begin_like(twin)
                    else:
                        loop.run_round()
                    dice = np.mean(loop.results[-1]["dice"])
                    progress.console.print(f"{loop.strategy}, seed {loop.seed}, round {number + 1}: Dice {dice:.3f}")
                    progress.advance(task)


def by_round(loops: Sequence[Loop]) -> dict[str, list[dict[str, Any]]]:
    """By strategy, of each round that all its seeds have: `scans`, `seconds`, and `dice`, the mean of each seed."""
    table: dict[str, list[dict[str, Any]]] = {}
    for strategy in dict.fromkeys(loop.strategy for loop in loops):
        of_strategy = [loop.results for loop in loops if loop.strategy == strategy]
        table[strategy] = [
            {
                "scans": len(rounds[0]["scans"]),
                "seconds": rounds[0]["seconds"],
                "dice": [float(np.mean(one["dice"])) for one in rounds],
            }
            for rounds in zip(*of_strategy, strict=False)
        ]
    return table


def print_tables(table: Mapping[str, Sequence[Mapping[str, Any]]], console: Console) -> None:
    seeds = max((len(row["dice"]) for rows in table.values() for row in rows), default=0)
    shown = Table(title=f"mean Dice of the unseen studies, {seeds} seeds (lowest to highest seed)")
    for heading in ("strategy", "annotated scans", "annotation time", "Dice"):
        shown.add_column(heading)
    for strategy, rows in table.items():
        for row in rows:
            dice = row["dice"]
            figures = f"{np.mean(dice):.3f} ({min(dice):.3f} to {max(dice):.3f})"
            shown.add_row(strategy, str(row["scans"]), f"{row['seconds']} s", figures)
    console.print(shown)
    differences = [
        [a - b for a, b in zip(ours["dice"], theirs["dice"], strict=True)]
        for ours, theirs in zip(table["uncertainty"], table["random"], strict=False)
    ][1:]  # the first round is one and the same
    if differences:
        mean_of_seed = np.mean(differences, axis=0)
        each = ", ".join(f"{value:+.3f}" for value in mean_of_seed)
        console.print(f"Uncertainty minus random, mean of the rounds after the first, by seed: {each}")


def plot(table: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Dice against annotated scans, and against annotation time; a line for the mean, a dot for each seed."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for panel, (column, heading) in zip(
        axes, (("scans", "annotated scans"), ("seconds", "annotation time in seconds")), strict=True
    ):
        for number, (strategy, rows) in enumerate(table.items()):
            x = [row[column] for row in rows]
            panel.plot(x, [np.mean(row["dice"]) for row in rows], color=f"C{number}", marker="o", label=strategy)
            for row in rows:
                panel.plot([row[column]] * len(row["dice"]), row["dice"], ".", color=f"C{number}", alpha=0.5)
        panel.set_xlabel(heading)
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("mean Dice of unseen studies")
    axes[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.active_learning", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the studies and the results")
    parser.add_argument("--seeds", type=int, default=3, help="loops of each strategy (default: %(default)s)")
    parser.add_argument("--pool", type=int, default=24, help="studies to choose from (default: %(default)s)")
    parser.add_argument("--unseen", type=int, default=10, help="studies for the Dice (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="trainings of a loop (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=240, help="of each training (default: %(default)s)")
    options = parser.parse_args()
    # What a round says of itself is not for this table; MONAI Label speaks by the root logger.
    logging.disable(logging.INFO)
    console = Console()
    yield_to_annotators()
    out = options.out.resolve()
    sizes = Sizes(options.pool, options.unseen, options.rounds, options.iterations)
    dataset = demo_dataset(out / f"demo,{sizes.pool}+{sizes.unseen}", sizes.pool, sizes.unseen)
    folder = out / f"pool={sizes.pool},iterations={sizes.iterations}"
    loops = [
        Loop(dataset, sizes, strategy, seed, folder)
        for seed in range(options.seeds)
        for strategy in (*STRATEGIES, MASKS)
    ]
    for of_masks in (False, True):  # what is compared first, in a run that is cut short
        replay([loop for loop in loops if (loop.strategy == MASKS) is of_masks], console)
    table = by_round(loops)
    print_tables(table, console)
    plot(table, out / "active_learning.png")
    console.print(f"Plot: {out / 'active_learning.png'}")


if __name__ == "__main__":
    main()
