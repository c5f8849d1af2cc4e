"""Which study comes next, asked of a real server: at once, nobody else's, and after a training by its doubts."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from monailabel.client import MONAILabelClient

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.local_server import LocalServer
from lib.demo.studies import write_demo_studies
from lib.geometry.volume import load_volume

SHORT = {"iterations": "2", "roi_size": "32x32x16", "levels": "2", "tracking": "None"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Ten studies of which two are clicked, a model that learnt from them, and its scores of the others."""
    root = tmp_path_factory.mktemp("active learning")
    studies = write_demo_studies(root / "studies", root / "truth", 10)
    with LocalServer(root / "studies", {"model_dir": str(root / "model"), **SHORT}, root / "server.log") as server:
        client = MONAILabelClient(server.url, tmpdir=str(root))
        for study in studies[:2]:
            truth = load_volume(root / "truth" / f"{study}.nii.gz").array > 0
            client.infer("extreme_points", study, {"lesion": simulated_extreme_points(truth).tolist()})
        client.train_start("inextremis", {})
        wait_for(lambda: client.train_status(check_if_running=False)["status"] == "DONE")
        yield root, server, studies


def wait_for(is_true, timeout_s=180):
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end, f"not so after {timeout_s} s"
        time.sleep(0.3)


def scored(root):
    path = root / "model" / "inextremis-versions" / "uncertainty.json"
    versions = json.loads(path.read_text())["versions"] if path.exists() else []
    return {entry["version"]: entry["scores"] for entry in versions}


def offer(server, strategy):
    answer = requests.post(f"{server.url}/activelearning/{strategy}", json={}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def test_studies_that_are_not_annotated_are_scored_after_a_training(site):
    root, _, studies = site

    wait_for(lambda: set(scored(root).get(1, ())) == set(studies[2:]))
    assert all(0 <= score["lesion"] <= 1 for score in scored(root)[1].values())


def test_clients_that_ask_at_once_get_studies_of_their_own_without_waiting(site):
    _, server, studies = site
    start = time.perf_counter()

    with ThreadPoolExecutor(8) as pool:
        offered = list(
            pool.map(lambda strategy: offer(server, strategy), ["uncertainty", "first", "random", "first"] * 2)
        )

    assert sorted(offered) == sorted(studies[2:])
    assert time.perf_counter() - start < 8


def test_strategy_that_is_not_there_is_refused(site):
    _, server, _ = site

    answer = requests.post(f"{server.url}/activelearning/wisdom", json={}, timeout=30)

    assert answer.status_code == 404
    assert "There is no strategy 'wisdom'; this app has random, first, uncertainty" in answer.json()["detail"]
