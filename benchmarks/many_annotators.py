"""Measure the time from clicks to the mask for one and for twenty annotators, with and without a training.

Run with `python -m benchmarks.many_annotators`. Each annotator sends one request after another; every answered
annotation is read back from disk and compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from rich.console import Console
from rich.table import Table

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import AnnotationStore
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume

LABEL = "lesion"
LONG = {"iterations": "1000000", "max_minutes": "0"}


@dataclass
class Site:
    """A server on demo studies, one for each annotator."""

    root: Path
    studies: list[str]
    server: LocalServer

    def click(self, study: str, seed: int) -> float:
        """Seconds of a request; the clicks are the same for the same seed."""
        start = time.perf_counter()
        answer = requests.post(
            f"{self.server.url}/infer/extreme_points",
            params={"image": study},
            data={"params": json.dumps({LABEL: self.clicks(study, seed), "client_id": f"{study}, {seed}"})},
            timeout=300,
        )
        answer.raise_for_status()
        return time.perf_counter() - start

    def clicks(self, study: str, seed: int) -> list[list[int]]:
        truth = load_volume(self.root / "truth" / f"{study}.nii.gz").array > 0
        return simulated_extreme_points(truth, np.random.default_rng(seed), 1.0).tolist()

    def seconds(self, annotators: int, requests_each: int) -> list[float]:
        """Of all requests of so many annotators at once."""

        def session(study: str) -> list[float]:
            return [self.click(study, seed) for seed in range(requests_each)]

        with ThreadPoolExecutor(annotators) as pool:
            return [second for some in pool.map(session, self.studies[:annotators]) for second in some]

    def lost(self, annotators: int, requests_each: int) -> int:
        """Answered annotations that are not in the store as they were sent, each in its order."""
        store, lost = AnnotationStore(self.root / "studies" / "labels" / "extreme_points"), 0
        for study in self.studies[:annotators]:
            sets = [*store.history(study, LABEL), json.loads(store.path(study, LABEL).read_text())["current"]]
            found = [[click["voxel"] for click in one["foreground"]] for one in sets[-requests_each:]]
            lost += sum(one != self.clicks(study, seed) for seed, one in enumerate(found))
        return lost


def train_stats(server: LocalServer) -> dict[str, Any]:
    """Return what the server tells viewers of its training; it names the scans once it has begun."""
    answer = requests.get(f"{server.url}/info/", timeout=60)
    answer.raise_for_status()
    stats: dict[str, Any] = answer.json()["train_stats"]["inextremis"]
    return stats


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_annotators", description=__doc__)
    parser.add_argument("--annotators", type=int, default=20)
    parser.add_argument("--requests", type=int, default=5, help="of each annotator")
    options = parser.parse_args()
    table = Table(title="seconds from clicks to the mask")
    for heading in ("annotators", "training", "median", "95 %", "slowest", "lost or mixed"):
        table.add_column(heading)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        studies = write_demo_studies(root / "studies", root / "truth", options.annotators)
        conf = {"model_dir": str(root / "model"), "tracking": "None", **LONG}
        with LocalServer(root / "studies", conf, root / "server.log") as server:
            site = Site(root, studies, server)
            site.seconds(1, 3)
            for training in (False, True):
                if training:
                    requests.post(f"{server.url}/train/inextremis", json={}, timeout=60).raise_for_status()
                    while "scans" not in train_stats(server):
                        time.sleep(0.5)
                for annotators in (1, options.annotators):
                    seconds = site.seconds(annotators, options.requests)
                    figures = (statistics.median(seconds), float(np.quantile(seconds, 0.95)), max(seconds))
                    lost = site.lost(annotators, options.requests)
                    row = (str(annotators), "runs" if training else "none", *(f"{figure:.2f}" for figure in figures))
                    table.add_row(*row, str(lost))
    Console().print(table)


if __name__ == "__main__":
    main()
