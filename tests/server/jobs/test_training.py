"""From clicks to an automatic mask, against a real server process."""

import hashlib

import pytest
import requests
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume
from lib.metrics import dice
from lib.networks.checkpoint import load_training_state
from lib.training.run import REPORTS
from tests.server.waiting import wait_for, wait_for_training

CLICKED, UNSEEN = 5, 3
ROI = {"roi_size": "40x40x24"}
STILL = {"learning_rate": 1e-9} | ROI
"""The network stays as it is, and so good enough to be published: windows of another size would change its masks."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("training")
    studies = write_demo_studies(root / "studies", root / "truth", CLICKED + UNSEEN)
    truth = {study: load_volume(root / "truth" / f"{study}.nii.gz").array > 0 for study in studies}
    conf = {"model_dir": str(root / "model")}
    with LocalServer(root / "studies", conf, root / "server.log") as server:
        yield root, server, MONAILabelClient(server.url, tmpdir=str(root)), truth


@pytest.mark.parametrize("address", ["/train/inextremis", "/train/"])
def test_training_without_annotations_says_so(site, address):
    _, server, client, _ = site
    answer = requests.post(server.url + address, json={}, timeout=60)

    assert answer.status_code == 409
    assert "There is nothing to learn from: no study has extreme points or a final mask yet." in answer.json()["detail"]
    with pytest.raises(MONAILabelClientException, match="No Train Tasks Found"):
        client.train_status(check_if_running=False)


def test_automatic_mask_without_a_model_says_so(site):
    _, server, _, _ = site
    answer = requests.post(f"{server.url}/infer/inextremis", params={"image": "study_00"}, timeout=60)

    assert answer.status_code == 409
    assert "There is no model trained for the labels of this app" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("address", "parameters", "status", "sentence"),
    [
        ("/train/inextremis", {"iterations": -3}, 422, "iterations: -3 cannot be used; Input should be greater than"),
        ("/train/", {"inextremis": {"roi_size": "big"}}, 422, "roi_size: 'big' cannot be used; expected three sizes"),
        ("/train/", {"inextremis": 7}, 422, "are 7; expected a JSON object"),
        ("/train/deepedit", {}, 404, "There is no trainer 'deepedit'; this app has inextremis"),
        ("/train/inextremis?run_sync=true", {}, 422, "trainings run in the background only"),
    ],
)
def test_training_that_cannot_start_is_refused(site, address, parameters, status, sentence):
    _, server, _, _ = site
    answer = requests.post(server.url + address, json=parameters, timeout=60)

    assert answer.status_code == status
    assert sentence in answer.json()["detail"]


def test_clicks_then_training_then_masks_of_studies_never_clicked(site):
    root, server, client, truth = site
    for study in list(truth)[:CLICKED]:
        client.infer("extreme_points", study, {"lesion": simulated_extreme_points(truth[study]).tolist()})

    client.train_start("inextremis", {"iterations": 200, "train_batch_size": 1} | ROI)
    task = wait_for_training(server.url, 600)

    assert task["status"] == "DONE", "\n".join(task["details"])
    stats = client.info()["train_stats"]["inextremis"]
    assert stats["epoch"] == stats["total_epochs"] == REPORTS
    assert (stats["scans"], stats["held_out"]) == (CLICKED - 1, 1)
    assert stats["best_metric"] > 0.1 and "held-out scan" in stats["verdict"]
    assert list((root / "model").rglob("events.out.tfevents*"))
    for study in list(truth)[CLICKED:]:
        path, params = client.infer("inextremis", study, {})
        mask, image = load_volume(path), load_volume(root / "studies" / f"{study}.nii.gz")
        assert mask.geometry.is_close(image.geometry)
        assert params["model_version"] == 1
        assert params["model_sha256"] == hashlib.sha256((root / "model" / "inextremis.pt").read_bytes()).hexdigest()
        # A guess that knew the size of the lesion would score about its share of the volume.
        chance = truth[study].mean()
        assert dice(mask.array > 0, truth[study]) > max(10 * chance, 0.1)


def test_click_after_training_names_the_model_where_it_counts_for_something(site):
    _, _, client, truth = site
    study = list(truth)[0]

    path, params = client.infer("extreme_points", study, {"lesion": simulated_extreme_points(truth[study]).tolist()})

    assert (params["stage"], params["model_version"]) in [("network", 1), ("cold_start", None)]
    assert dice(load_volume(path).array > 0, truth[study]) > 0.7


def test_stopped_training_publishes_nothing_and_the_next_goes_on(site):
    root, server, client, _ = site
    published = (root / "model" / "inextremis.pt").read_bytes()
    unfinished = root / "model" / "inextremis" / "unfinished.pt"
    client.train_start("inextremis", STILL | {"iterations": 100_000, "max_minutes": 3})
    wait_for(unfinished.exists, 240)
    client.train_stop()

    assert wait_for_training(server.url, 600)["status"] == "STOPPED"
    assert (root / "model" / "inextremis.pt").read_bytes() == published
    stopped_at = load_training_state(unfinished).iterations
    before = load_training_state(root / "model" / "inextremis.pt").iterations
    assert stopped_at > before

    client.train_start("inextremis", STILL | {"iterations": 20})
    task = wait_for_training(server.url, 600)
    assert task["status"] == "DONE"
    assert any("A training that was interrupted continues" in line for line in server_log(root))
    assert not unfinished.exists()
    assert load_training_state(root / "model" / "inextremis.pt").iterations in range(stopped_at + 1, stopped_at + 20)
    _, params = client.infer("inextremis", "study_00", {})
    assert params["model_version"] == 2


def test_worse_network_is_not_published(site):
    """A learning rate that throws the weights far off; the log and the figures say what came of it."""
    root, server, client, _ = site
    published = (root / "model" / "inextremis.pt").read_bytes()

    client.train_start("inextremis", {"iterations": 4, "learning_rate": 1, "warm_up_iterations": 0})
    wait_for_training(server.url, 600)

    assert (root / "model" / "inextremis.pt").read_bytes() == published
    assert "too far below the best kept version's" in client.info()["train_stats"]["inextremis"]["verdict"]
    assert "The published model stays." in "\n".join(server_log(root))


def server_log(root):
    return (root / "server.log").read_text().splitlines()
