from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from lib.demo.orthanc import Orthanc
from lib.geometry.volume import load_volume
from tests.installed import need_orthanc
from tests.server.archive.archive_server import Archive


@dataclass
class Site:
    """Running server, its studies, and their true masks, which the server does not see."""

    url: str
    studies: Path
    truth: Path
    server: LocalServer

    def mask(self, study):
        return load_volume(self.truth / f"{study}.nii.gz").array > 0

    def clicks(self, study, seed=0):
        return simulated_extreme_points(self.mask(study), np.random.default_rng(seed)).tolist()


@contextmanager
def running_site(root, count, environment=None, **conf):
    """Run a server on a folder of demo studies."""
    write_demo_studies(root / "studies", root / "truth", count)
    conf = {"labels": "lesion,cyst", "model_dir": str(root / "model"), "tracking": "None", **conf}
    with LocalServer(root / "studies", conf, root / "server.log", environment=environment) as server:
        yield Site(server.url, root / "studies", root / "truth", server)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Run a server for all tests; the name of its folder has a blank, as users' folders may."""
    with running_site(tmp_path_factory.mktemp("my studies"), 8) as site:
        yield site


@pytest.fixture(scope="module")
def own_site(tmp_path_factory):
    """Run a server for the tests of one file, which may change its data."""
    with running_site(tmp_path_factory.mktemp("own studies"), 4, iterations="2", roi_size="16x16x16") as site:
        yield site


@pytest.fixture(scope="module")
def archive(request, tmp_path_factory):
    """Run an Orthanc for the tests of one file, with the module's `LOGIN` if it has one."""
    need_orthanc()
    root = tmp_path_factory.mktemp("archive")
    with Orthanc(root / "orthanc", login=getattr(request.module, "LOGIN", None)) as orthanc:
        yield Archive(orthanc, root)
