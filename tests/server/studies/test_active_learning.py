"""Which study comes next, asked of a real server: at once, and nobody else's."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from monailabel.client import MONAILabelClient

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Ten studies of which two are clicked."""
    root = tmp_path_factory.mktemp("active learning")
    studies = write_demo_studies(root / "studies", root / "truth", 10)
    with LocalServer(root / "studies", {}, root / "server.log") as server:
        client = MONAILabelClient(server.url, tmpdir=str(root))
        for study in studies[:2]:
            truth = load_volume(root / "truth" / f"{study}.nii.gz").array > 0
            client.infer("extreme_points", study, {"lesion": simulated_extreme_points(truth).tolist()})
        yield server, studies


def offer(server, strategy):
    answer = requests.post(f"{server.url}/activelearning/{strategy}", json={}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def test_clients_that_ask_at_once_get_studies_of_their_own_without_waiting(site):
    server, studies = site
    start = time.perf_counter()

    with ThreadPoolExecutor(8) as pool:
        offered = list(pool.map(lambda strategy: offer(server, strategy), ["random", "first"] * 4))

    assert sorted(offered) == sorted(studies[2:])
    assert time.perf_counter() - start < 8


@pytest.mark.parametrize("strategy", ["wisdom", "uncertainty"])
def test_strategy_that_is_not_there_is_refused(site, strategy):
    server, _ = site

    answer = requests.post(f"{server.url}/activelearning/{strategy}", json={}, timeout=30)

    assert answer.status_code == 404
    assert answer.json()["detail"] == f"There is no strategy '{strategy}'; this app has random, first, worst proposal."
