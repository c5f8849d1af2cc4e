"""Measure the parts of a training iteration, on demo studies with scripted clicks.

Run with `python -m benchmarks.training_step`; the thread count is that of a training beside a server.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.demo_trainings import clicked_scans, demo_dataset
from benchmarks.training_speed import TimedTraining
from lib.data.prepared_scans import PreparedScans
from lib.trainers.background import run_at_low_priority
from lib.training.hyperparameters import Hyperparameters, Preset

STUDIES = 6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step", description=__doc__)
    parser.add_argument("--preset", choices=get_args(Preset), default="auto")
    parser.add_argument("--iterations", type=int, default=40)
    options = parser.parse_args()
    run_at_low_priority()
    h = Hyperparameters.of_preset(options.preset)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        dataset = demo_dataset(Path(folder), STUDIES)
        prepared = PreparedScans(Path(folder) / "prepared")
        training = TimedTraining.on(clicked_scans(dataset), dataset.labels, h, prepared, device)
        rate = training.iterations_per_s(float("inf"), options.iterations)
        seconds = training.seconds_of_parts(float("inf"), options.iterations)
    whole = sum(seconds.values())
    table = Table("part", "ms", "share", title=f"A training iteration, preset {options.preset}")
    for name, of_part in seconds.items():
        table.add_row(name, f"{1000 * of_part:.1f}", f"{of_part / whole:.1%}")
    table.add_row("all", f"{1000 * whole:.1f}", "", style="bold")
    console = Console()
    console.print(table)
    console.print(f"Without the clock: {1000 / rate:.1f} ms, on {device.type}, {torch.get_num_threads()} thread(s).")
    console.print(f"Once: {training.preparing_s:.2f} s to prepare a scan.")


if __name__ == "__main__":
    main()
