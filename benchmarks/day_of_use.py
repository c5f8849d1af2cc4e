"""Measure memory and open files of a server during 1,000 click requests and 20 trainings.

Run with `python -m benchmarks.day_of_use`. Trainings are short, and follow each other while annotators click. Memory is
the resident set of the server's own process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil
import requests
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.many_annotators import Site
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer

STUDIES = 10
SHORT = {
    "iterations": "4",
    "roi_size": "32x32x16",
    "levels": "2",
}
TRAINING = "/train/inextremis"


def is_training(server: LocalServer) -> bool:
    return requests.get(f"{server.url}/train/", params={"check_if_running": "true"}, timeout=60).ok


def left_behind(temporary: Path) -> list[str]:
    """Return files in the server's temporary folder, without those that libraries keep for the life of a process."""
    return [path.name for path in temporary.rglob("*") if path.is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.day_of_use", description=__doc__)
    parser.add_argument("--clicks", type=int, default=1000)
    parser.add_argument("--trainings", type=int, default=20)
    options = parser.parse_args()
    console, table = Console(), Table(title="memory of the server")
    for heading in ("click requests", "trainings", "MB", "open files", "threads"):
        table.add_column(heading)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "tmp").mkdir()
        studies = write_demo_studies(root / "studies", root / "truth", STUDIES)
        conf = {"model_dir": str(root / "model"), "tracking": "None", **SHORT}
        environment = {"TMPDIR": str(root / "tmp")}
        server = LocalServer(root / "studies", conf, root / "server.log", environment=environment)
        with server, Progress(console=console) as progress:
            site, process, trainings = Site(root, studies, server), psutil.Process(server.process.pid), 0
            bar = progress.add_task("Clicks", total=options.clicks)
            for number in range(1, options.clicks + 1):
                site.click(studies[number % STUDIES], number)
                progress.advance(bar)
                due = number * options.trainings // options.clicks
                if trainings < due and not is_training(server):
                    requests.post(server.url + TRAINING, json={"seed": number}, timeout=60).raise_for_status()
                    trainings += 1
                if number % (options.clicks // 10) == 0:
                    memory_mb = process.memory_info().rss / 2**20
                    figures = (number, trainings, round(memory_mb), process.num_fds(), process.num_threads())
                    table.add_row(*map(str, figures))
            while trainings < options.trainings or is_training(server):
                time.sleep(0.5)
                if trainings < options.trainings and not is_training(server):
                    requests.post(server.url + TRAINING, json={"seed": trainings}, timeout=60).raise_for_status()
                    trainings += 1
            memory_mb = process.memory_info().rss / 2**20
            table.add_row("all", str(trainings), f"{memory_mb:.0f}", str(process.num_fds()), str(process.num_threads()))
            remaining = left_behind(root / "tmp")
        console.print(table)
        console.print(f"Temporary files left: {len(remaining)} {remaining[:5]}")
        size_mb = sum(path.stat().st_size for path in (root / "model").rglob("*") if path.is_file()) / 2**20
        console.print(f"The folder of models holds {size_mb:.1f} MB.")


if __name__ == "__main__":
    main()
