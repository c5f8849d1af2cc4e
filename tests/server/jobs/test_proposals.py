"""Proposals of a real server: started, watched, shown, stopped, and ended by a person's mask."""

import json
from urllib.parse import urljoin

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests

from lib.demo.local_server import LocalServer
from tests.preannotation.projects import proposed, publish, tiny_project
from tests.server.asking import submit
from tests.server.waiting import wait_for

COUNT = 40


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Start a server on studies without a model."""
    root = tmp_path_factory.mktemp("proposals")
    folder = tiny_project(root / "studies", COUNT, broken=1)
    (folder / "model" / "inextremis.pt").unlink()
    with LocalServer(folder, {}, root / "server.log") as server:
        yield folder, server


def get(server, path):
    answer = requests.get(urljoin(server.url, path), timeout=60)
    answer.raise_for_status()
    return answer.json()


def ended(server):
    told = get(server, "/proposals")
    return None if told["running"] else told


def start(server, **parameters):
    return requests.post(f"{server.url}/proposals", json=parameters, timeout=60)


def test_nothing_is_proposed_without_a_model(site):
    _, server = site

    answer = start(server)
    assert answer.status_code == 409 and "no model trained for the labels" in answer.json()["detail"]
    told = get(server, "/proposals")
    assert (told["running"], told["total"], told["sentence"], told["may_start"]) == (False, 0, None, True)
    assert requests.delete(f"{server.url}/proposals", timeout=60).status_code == 409


def test_proposals_from_start_to_a_final_mask(site):
    folder, server = site
    model = publish(folder)

    for wrong in ({"limit": 0}, {"limit": "all"}, {"strategy": "last"}):
        assert start(server, **wrong).status_code == 422
    assert start(server).json()["running"]
    assert start(server).status_code == 429
    wait_for(lambda: get(server, "/proposals")["stored"] >= 2, 240)
    children = psutil.Process(server.process.pid).children(recursive=True)
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert workers and all(worker.nice() >= 10 for worker in workers)
    stopped = requests.delete(f"{server.url}/proposals", timeout=60).json()
    assert not stopped["running"] and 2 <= len(proposed(folder)) < COUNT
    assert not any(worker.is_running() for worker in workers)

    assert start(server).status_code == 200  # goes on
    told = wait_for(lambda: ended(server), 240)
    assert proposed(folder) == {f"s{number:04d}" for number in range(COUNT)}
    assert told["n_failed"] == 1 and told["failed"][0]["id"] == "broken0"
    assert "1 studies failed." in told["sentence"] and str(folder) not in json.dumps(told)

    listed = get(server, "/studies")
    assert listed["project"]["counts"]["proposed"] == COUNT
    entry = next(entry for entry in listed["studies"] if entry["id"] == "s0003")
    assert entry["state"] == "proposed" and 0 <= entry["quality"] <= 1
    told = get(server, "/studies/s0003")
    assert told["state"] == "proposed" and told["final"] is None
    proposal = told["proposal"]
    assert (proposal["model_version"], proposal["model_sha256"]) == (model.version, model.sha256)
    assert (proposal["quality"], proposal["labels"], proposal["unreviewed"]) == (entry["quality"], ["lesion"], True)

    path = folder.parent / "mask.nii.gz"
    path.write_bytes(requests.get(urljoin(server.url, proposal["url"]), timeout=60).content)
    mask = nib.load(path)
    assert mask.shape == tuple(told["geometry"]["shape"])
    said = {name: proposal[name] for name in ("model_version", "model_sha256")}
    sent = "s0003", np.asarray(mask.dataobj), mask.affine
    params = {"client_id": "anna", "labels": ["lesion"], "proposal": said}
    assert submit(server, *sent, tag="proposal", **params).status_code == 422
    assert submit(server, *sent, **params).ok
    told = get(server, "/studies/s0003")
    assert (told["state"], told["proposal"], told["final"]["origin"]) == ("final", None, {"lesion": "accepted"})
    assert get(server, "/studies")["project"]["counts"]["proposed"] == COUNT - 1


def test_worst_proposal_is_offered_first(site):
    _, server = site
    qualities = {
        entry["id"]: entry["quality"] for entry in get(server, "/studies")["studies"] if entry["state"] == "proposed"
    }
    offered = requests.post(f"{server.url}/activelearning/worst%20proposal", json={"client_id": "bert"}, timeout=60)

    assert offered.json()["id"] == min(qualities, key=lambda image_id: (qualities[image_id], image_id))


def test_runs_are_in_the_audit_log(site):
    folder, _ = site
    actions = [json.loads(line)["action"] for line in (folder / "audit" / "audit.jsonl").read_text().splitlines()]

    assert {"proposals", "end of the proposals"} <= set(actions)


def test_run_ends_with_the_server(tmp_path):
    folder = tiny_project(tmp_path / "studies", COUNT)
    with LocalServer(folder, {}, tmp_path / "server.log") as server:
        start(server)
        wait_for(lambda: len(proposed(folder)) >= 1, 240)
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        gone, alive = psutil.wait_procs(children, timeout=30)
        assert alive == []
