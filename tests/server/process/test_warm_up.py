"""A server that is started where nothing is compiled: nobody waits for the compiler once it answers."""

import numpy as np
import pytest

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume
from tests.server.asking import infer


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Run a server and return it with the folder of its compiled code, and clicks."""
    root = tmp_path_factory.mktemp("fresh")
    write_demo_studies(root / "studies", root / "truth", 1)
    truth = load_volume(root / "truth" / "study_00.nii.gz").array > 0
    clicks = simulated_extreme_points(truth, np.random.default_rng(0)).tolist()
    cache = root / "cache"
    environment = {"NUMBA_CACHE_DIR": str(cache)}
    with LocalServer(root / "studies", {"tracking": "None"}, root / "log", environment=environment) as server:
        yield server, cache, clicks


def compiled(cache):
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}


def test_first_click_compiles_nothing(site):
    server, cache, clicks = site
    before = compiled(cache)

    answer = infer(server, "study_00", {"lesion": clicks})

    assert answer.status_code == 200
    assert before
    assert compiled(cache) == before


def test_server_is_ready_before_it_prints_its_address(site):
    lines = site[0].log.read_text().splitlines()

    (ready,) = (n for n, line in enumerate(lines) if "Ready for clicks" in line)
    (address,) = (n for n, line in enumerate(lines) if "running on http://" in line)
    assert ready < address
