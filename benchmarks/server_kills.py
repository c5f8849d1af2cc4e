"""A server killed at random moments while annotators click: is every answered annotation there after the restart?

Run with `python -m benchmarks.server_kills --kills 100` (about 15 s each).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests
from rich.console import Console
from rich.progress import track

from benchmarks.many_annotators import LABEL, Site
from lib.annotations.store import AnnotationStore
from lib.demo.local_server import LocalServer
from lib.demo.studies import write_demo_studies

ANNOTATORS = 4
LONGEST_S = 2.0


class Killing:
    """Studies, and all clicks that a server answered before it was killed, over many lives of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.studies = write_demo_studies(root / "studies", root / "truth", ANNOTATORS)
        self.answered: list[tuple[str, list[list[int]]]] = []
        self.lives = 0

    def live_and_die(self, seconds: float) -> None:
        """Starts a server, has it clicked on, and kills it and all its processes after so many seconds.

        Raises:
            ServerError: it does not start any more.
            requests.HTTPError: it refused clicks.
        """
        self.lives += 1
        conf = {"model_dir": str(self.root / "model"), "tracking": "None"}
        server = LocalServer(self.root / "studies", conf, self.root / "server.log")
        server.wait_until_ready()
        site, over = Site(self.root, self.studies, server), threading.Event()

        def annotate(number: int) -> None:
            for count in range(10_000):
                study, seed = self.studies[(number + count) % ANNOTATORS], (self.lives * 100 + number) * 10_000 + count
                try:
                    site.click(study, seed)
                except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                    if over.is_set():
                        return
                    raise
                self.answered.append((study, site.clicks(study, seed)))

        with ThreadPoolExecutor(ANNOTATORS) as pool:
            sessions = [pool.submit(annotate, number) for number in range(ANNOTATORS)]
            time.sleep(seconds)
            over.set()
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            for session in sessions:
                session.result()

    def lost(self) -> int:
        """Answered click sets that are on disk no more."""
        store = AnnotationStore(self.root / "studies" / "labels" / "extreme_points")
        kept = {}
        for study in {study for study, _ in self.answered}:
            current = json.loads(store.path(study, LABEL).read_text())["current"]
            kept[study] = [
                [click["voxel"] for click in one["foreground"]] for one in [*store.history(study, LABEL), current]
            ]
        return sum(clicks not in kept[study] for study, clicks in self.answered)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    options = parser.parse_args()
    console, rng = Console(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        killing = Killing(Path(folder))
        for _ in track(range(options.kills), "Kills", console=console):
            killing.live_and_die(rng.uniform(0.05, LONGEST_S))
        console.print(f"{options.kills} kills, {len(killing.answered)} answered click sets, {killing.lost()} lost.")


if __name__ == "__main__":
    main()
