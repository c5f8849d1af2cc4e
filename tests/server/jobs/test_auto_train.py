"""Trainings that start by themselves, against a real server process."""

import requests
from monailabel.client import MONAILabelClient

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume
from tests.server.waiting import wait_for

SHORT = {"iterations": "2", "roi_size": "32x32x16", "levels": "2"}


def tasks(server):
    answer = requests.get(f"{server.url}/train/", params={"all": "true"}, timeout=30)
    return answer.json() if answer.ok else []


def test_annotations_during_a_training_bring_about_one_more_after_it(tmp_path):
    """Two annotations start a training; of the six that come while it runs, none starts a third."""
    studies = write_demo_studies(tmp_path / "studies", tmp_path / "truth", 8)
    conf = {"model_dir": str(tmp_path / "model"), "auto_train": "2", **SHORT}
    with LocalServer(tmp_path / "studies", conf, tmp_path / "server.log") as server:
        client = MONAILabelClient(server.url, tmpdir=str(tmp_path))

        def click(study):
            truth = load_volume(tmp_path / "truth" / f"{study}.nii.gz").array > 0
            client.infer("extreme_points", study, {"lesion": simulated_extreme_points(truth).tolist()})

        click(studies[0])
        click(studies[0])
        assert tasks(server) == []
        click(studies[1])
        assert len(tasks(server)) == 1
        for study in studies[2:]:
            click(study)
        assert [task["status"] for task in tasks(server)] == ["RUNNING", "SUBMITTED"]

        wait_for(lambda: all(task["status"] not in ("RUNNING", "SUBMITTED") for task in tasks(server)), 240)
        assert [task["status"] for task in tasks(server)] == ["DONE", "DONE"]
        stats = client.info()["train_stats"]["inextremis"]
        assert stats["scans"] + stats["held_out"] == 8
