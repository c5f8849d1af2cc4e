"""Kill a server at random moments while annotators work, and check all confirmed annotations after the restart.

Run with `python -m benchmarks.server_kills --kills 100` (about 15 s each); `--masks` submits final masks and no clicks.
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
from typing import Any

import nibabel as nib
import numpy as np
import requests
from rich.console import Console
from rich.progress import track

from benchmarks.many_annotators import LABEL, Site
from lib.annotations.store import AnnotationStore
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume
from lib.server.project import Project

ANNOTATORS = 4
LONGEST_S = 2.0


class Killing:
    """Studies, and all annotations that a server answered before it was killed, over many lives of it.

    Args:
        masks: final masks are submitted; otherwise extreme points are clicked.
    """

    def __init__(self, root: Path, masks: bool = False) -> None:
        self.root = root
        self.masks = masks
        self.studies = write_demo_studies(root / "studies", root / "truth", ANNOTATORS)
        self.answered: list[tuple[str, Any]] = []
        self.lives = 0

    def live_and_die(self, seconds: float) -> None:
        """Start a server, run annotators against it, and kill it and all its processes after so many seconds.

        Raises:
            ServerError: it does not start any more.
            requests.HTTPError: it refused an annotation.
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
                    annotation = self._submit(site, study, seed) if self.masks else self._click(site, study, seed)
                except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                    if over.is_set():
                        return
                    raise
                self.answered.append((study, annotation))

        with ThreadPoolExecutor(ANNOTATORS) as pool:
            sessions = [pool.submit(annotate, number) for number in range(ANNOTATORS)]
            time.sleep(seconds)
            over.set()
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            for session in sessions:
                session.result()

    @staticmethod
    def _click(site: Site, study: str, seed: int) -> list[list[int]]:
        site.click(study, seed)
        return site.clicks(study, seed)

    def _submit(self, site: Site, study: str, seed: int) -> bytes:
        """Submit a unique mask, and return its voxels."""
        image: Any = nib.load(self.root / "studies" / f"{study}.nii.gz")
        mask = np.random.default_rng(seed).integers(0, 2, image.shape, dtype=np.uint8)
        answer = requests.put(
            f"{site.server.url}/datastore/label",
            params={"image": study, "tag": "final"},
            files={"label": ("mask.nii", nib.Nifti1Image(mask, image.affine).to_bytes())},
            timeout=60,
        )
        answer.raise_for_status()
        return mask.tobytes()

    def lost(self) -> int:
        """Answered annotations that are on disk no more."""
        kept = {study: self._kept(study) for study in {study for study, _ in self.answered}}
        return sum(annotation not in kept[study] for study, annotation in self.answered)

    def _kept(self, study: str) -> list[Any]:
        """All annotations of a study, old and new. Raises: an error of the reader, where one of them is torn."""
        project = Project(self.root / "studies")
        if self.masks:
            paths = [project.masks() / f"{study}.nii.gz", *(project.masks() / "history" / study).glob("*.nii.gz")]
            return [load_volume(path).array.astype(np.uint8).tobytes() for path in paths]
        store = AnnotationStore(project.clicks)
        current = json.loads(store.path(study, LABEL).read_text())["current"]
        return [[click["voxel"] for click in one["foreground"]] for one in [*store.history(study, LABEL), current]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--masks", action="store_true", help="submit final masks")
    options = parser.parse_args()
    console, rng = Console(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        killing = Killing(Path(folder), options.masks)
        for _ in track(range(options.kills), "Kills", console=console):
            killing.live_and_die(rng.uniform(0.05, LONGEST_S))
        console.print(f"{options.kills} kills, {len(killing.answered)} answered annotations, {killing.lost()} lost.")


if __name__ == "__main__":
    main()
