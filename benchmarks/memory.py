"""Peak memory of a training, for few and for many studies.

Run with `python -m benchmarks.memory`; each training is a process of its own, and reads every study.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.training_runs import LABEL, Dataset
from lib.networks.versions import ModelVersions
from lib.server.open_studies import open_studies
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.train_task import InExtremISTrainTask

DISTINCT = 10


def repeat_studies(dataset: Dataset, count: int) -> None:
    """Names the studies and their clicks again until there are `count`; as files they are links."""
    studies = dataset.folder / "studies"
    for number in range(DISTINCT, count):
        original, copy = f"study_{number % DISTINCT:02d}", f"study_{number:02d}"
        os.link(studies / f"{original}.nii.gz", studies / f"{copy}.nii.gz")
        dataset.store.save(replace(dataset.store.load(original, LABEL), image_id=copy))


def peak_mb_of_training(folder: Path, patches: int) -> float:
    logging.disable(logging.INFO)
    hyperparameters = Hyperparameters.of_preset("cpu").changed(
        # Four patches come of each scan that is read, see lib/data/scans.py.
        {
            "max_epochs": 1,
            "iterations_per_epoch": 4 * patches,
            "train_batch_size": 1,
            "roi_size": "32x32x16",
            "held_out_share": 0,
        }
    )
    store = Dataset(folder, 0, 0).store
    versions = ModelVersions(folder / "model" / "inextremis.pt")
    trainer = InExtremISTrainTask(versions, (LABEL,), store, hyperparameters, "None")
    trainer({"model": "inextremis"}, open_studies(str(folder / "studies"), (LABEL,), None))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--studies", type=int, nargs="+", default=[10, 200])
    options = parser.parse_args()
    table = Table("studies", "peak memory (MB)", title="A training in which every study is read")
    for count in options.studies:
        with tempfile.TemporaryDirectory() as folder:
            dataset = Dataset(Path(folder), clicked=DISTINCT, unseen=0)
            dataset.make()
            repeat_studies(dataset, count)
            # A new interpreter, so that the peak is that of this training.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                peak_mb = pool.submit(peak_mb_of_training, Path(folder), count).result()
        table.add_row(str(count), f"{peak_mb:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
