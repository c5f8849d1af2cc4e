"""Measure the peak memory of a training, for few and for many scans.

Run with `python -m benchmarks.memory`; each training is a process of its own and reads nearly every scan.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.demo_trainings import clicked_scans, demo_dataset, trained_model
from lib.data.annotated_scan import AnnotatedScan
from lib.training.hyperparameters import Hyperparameters

STUDIES = 10
PATCHES_OF_A_SCAN = 4
"""With random patches, 98 % of the scans are read."""


def repeated(scans: Sequence[AnnotatedScan], count: int) -> list[AnnotatedScan]:
    """Repeat scans under other names, so that the cache stores each of them."""
    return [
        replace(scans[n % len(scans)], image_id=f"scan_{n}", image_checksum=f"checksum of scan_{n}")
        for n in range(count)
    ]


def peak_mb_of_training(scans: list[AnnotatedScan], labels: tuple[str, ...], folder: Path) -> float:
    changes = {
        "min_spacing_mm": 0,
        "roi_size": "32x32x16",
        "train_batch_size": 1,
        "iterations": PATCHES_OF_A_SCAN * len(scans),
        "max_minutes": 0,
        "held_out_share": 0,
    }
    trained_model(scans, labels, folder / "model", Hyperparameters.of_preset("cpu").changed(changes))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--scans", type=int, nargs="+", default=[10, 200])
    options = parser.parse_args()
    table = Table("scans", "prepared scans (MB)", "peak memory (MB)", title="A training of one patch an iteration")
    with tempfile.TemporaryDirectory() as folder:
        dataset = demo_dataset(Path(folder) / "demo", min(STUDIES, max(options.scans)))
        for count in options.scans:
            scans, place = repeated(clicked_scans(dataset), count), Path(folder) / str(count)
            # A new interpreter, so that the peak is that of this training.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                peak_mb = pool.submit(peak_mb_of_training, scans, dataset.labels, place).result()
            prepared_mb = sum(path.stat().st_size for path in (place / "prepared").iterdir()) / 2**20
            table.add_row(str(count), f"{prepared_mb:.0f}", f"{peak_mb:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
