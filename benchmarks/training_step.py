"""Where the time of a training iteration goes, and the share of the geodesics and of the CRF term.

Run with `python -m benchmarks.training_step`; the iterations are those of the app's trainer, on demo studies that a
scripted annotator clicked.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.training_runs import LABEL, Dataset
from lib.data.scans import AnnotatedScan, PatchBatch, patch_loader
from lib.networks.spec import NetworkSpec
from lib.trainers.annotated_scans import grid_spacing_mm
from lib.trainers.background import yield_to_annotators
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.objective import InExtremISObjective

WARM_UP = 3
METHOD = ("geodesics", "CRF term")


class Timers:
    """Seconds of each stage, one entry an iteration."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name].append(time.perf_counter() - start)


def iteration(
    batch: PatchBatch, network: torch.nn.Module, objective: InExtremISObjective, optimizer: torch.optim.SGD, t: Timers
) -> None:
    """One step, as `InExtremISObjective.forward` and the trainer do it, with a clock on each part."""
    with t.stage("network, forward"):
        logits = network(batch.image)
    probability = torch.softmax(logits, dim=1)[:, 1:]
    with t.stage("geodesics"):
        target = objective.target(batch, probability.detach())
    with t.stage("partial loss"):
        loss = objective.partial_loss(logits, target)
    with t.stage("CRF term"):
        loss = loss + objective.hyperparameters.crf_weight * objective.crf_loss(batch.image, probability)
    with t.stage("backward, step"):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def measure(hyperparameters: Hyperparameters, scans: list[AnnotatedScan], iterations: int) -> Timers:
    spacing_mm = grid_spacing_mm(scans, hyperparameters.min_spacing_mm)
    h = hyperparameters
    spec = NetworkSpec.plan((LABEL,), spacing_mm, h.roi_size, h.levels, h.base_channels)
    network = spec.build().train()
    objective = InExtremISObjective((LABEL,), spacing_mm, h)
    optimizer = torch.optim.SGD(network.parameters(), h.learning_rate, momentum=h.momentum, nesterov=True)
    batches = iter(
        patch_loader(
            scans,
            spacing_mm=spacing_mm,
            roi_size=spec.roi_size,
            batch_size=h.train_batch_size,
            patches_per_epoch=(iterations + WARM_UP) * h.train_batch_size,
            annotated_fraction=h.annotated_fraction,
            margin_voxels=h.box_margin,
            augmentation=h.augmentation,
        )
    )
    timers = Timers()
    for number in range(iterations + WARM_UP):
        if number == WARM_UP:
            timers = Timers()
        with timers.stage("loading"):
            batch = next(batches)
        iteration(batch, network, objective, optimizer, timers)
    return timers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step", description=__doc__)
    parser.add_argument("--preset", choices=("cpu", "paper"), default="cpu")
    parser.add_argument("--iterations", type=int, default=40)
    options = parser.parse_args()
    yield_to_annotators()
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Path(folder), clicked=6, unseen=0)
        dataset.make()
        studies = dataset.folder / "studies"
        scans = [AnnotatedScan(a.image_id, studies / f"{a.image_id}.nii.gz", (a,)) for a in dataset.store]
        timers = measure(Hyperparameters.of_preset(options.preset), scans, options.iterations)
    # The mean, for loading comes in bursts.
    mean = {name: float(np.mean(seconds)) for name, seconds in timers.seconds.items()}
    whole = sum(mean.values())
    table = Table("stage", "ms", "share", title=f"A training iteration, preset {options.preset}")
    for name, seconds in mean.items():
        table.add_row(name, f"{1000 * seconds:.1f}", f"{seconds / whole:.1%}")
    table.add_row("all", f"{1000 * whole:.1f}", "", style="bold")
    Console().print(table)
    share = sum(mean[name] for name in METHOD) / whole
    Console().print(f"{' and '.join(METHOD)}: {share:.1%} of an iteration, on {torch.get_num_threads()} thread(s)")


if __name__ == "__main__":
    main()
