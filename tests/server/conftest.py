from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.local_server import LocalServer
from lib.demo.studies import write_demo_studies
from lib.geometry.volume import load_volume


@dataclass
class Site:
    """A running server, its studies, and the truth that it does not see."""

    url: str
    studies: Path
    truth: Path
    server: LocalServer

    def mask(self, study):
        return load_volume(self.truth / f"{study}.nii.gz").array > 0

    def clicks(self, study, seed=0):
        return simulated_extreme_points(self.mask(study), np.random.default_rng(seed)).tolist()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A server on a folder of demo studies; its name holds a blank, as users' folders do."""
    root = tmp_path_factory.mktemp("my studies")
    write_demo_studies(root / "studies", root / "truth", 8)
    conf = {"labels": "lesion,cyst", "model_dir": str(root / "model"), "tracking": "None"}
    with LocalServer(root / "studies", conf, root / "server.log") as server:
        yield Site(server.url, root / "studies", root / "truth", server)
