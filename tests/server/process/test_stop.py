"""A training ends with the server that started it, even if the server is killed."""

import psutil
import requests
import torch

from lib.networks.checkpoint import TrainedModel, save_checkpoint
from lib.networks.spec import NetworkSpec
from tests.server.asking import infer
from tests.server.conftest import running_site
from tests.server.waiting import wait_for

# A training takes seconds to save its first state, from which it could continue.
LONG = {"iterations": 100_000, "max_minutes": 3}


def trainings(server):
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [child for child in children if "monailabel.interfaces.utils.app" in child.cmdline()]


def test_training_ends_with_a_server_that_is_killed(tmp_path):
    (tmp_path / "model").mkdir()
    spec = NetworkSpec.plan(("lesion", "cyst"), (1.0, 1.0, 1.0), (32, 32, 16), levels=2, base_channels=4)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "model" / "inextremis.pt", TrainedModel(spec, spec.build(), 1))
    with running_site(tmp_path, 6) as site:
        infer(site, "study_00", {"lesion": site.clicks("study_00")}).raise_for_status()
        requests.post(f"{site.url}/train/inextremis", json=LONG, timeout=60).raise_for_status()
        wait_for((tmp_path / "model" / "inextremis" / "unfinished.pt").exists, 90)
        (training,) = trainings(site.server)

        site.server.process.kill()

        assert psutil.wait_procs([training], timeout=10)[1] == []
