"""The server is stopped: it ends at once, and then the training that it started."""

import signal

import psutil
import pytest
import requests
import torch

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume
from lib.networks.checkpoint import TrainedModel, save_checkpoint
from lib.networks.spec import NetworkSpec
from tests.server.asking import infer
from tests.server.waiting import wait_for

# The first twentieth, after which there is something to go on from, takes seconds.
LONG = {"iterations": 100_000, "max_minutes": 3}


@pytest.fixture
def server(tmp_path):
    """Run a server with a small model, from which a training continues."""
    write_demo_studies(tmp_path / "studies", tmp_path / "truth", 6)
    (tmp_path / "model").mkdir()
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (32, 32, 16), levels=2, base_channels=4)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "model" / "inextremis.pt", TrainedModel(spec, spec.build(), 1))
    conf = {"model_dir": str(tmp_path / "model"), "tracking": "None"}
    with LocalServer(tmp_path / "studies", conf, tmp_path / "server.log") as server:
        yield server


def processes(server, word):
    """Return the processes that the server started with this word in their command."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [child for child in children if any(word in part for part in child.cmdline())]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once(server, end):
    server.process.send_signal(end)

    # Python's own end, which a SIGINT brings about, took 4 to 8 s.
    assert server.process.wait(3) == -signal.SIGTERM


def test_training_ends_with_a_server_that_is_killed(server, tmp_path):
    truth = load_volume(tmp_path / "truth" / "study_00.nii.gz").array > 0
    infer(server, "study_00", {"lesion": simulated_extreme_points(truth).tolist()}).raise_for_status()
    requests.post(f"{server.url}/train/inextremis", json=LONG, timeout=60).raise_for_status()
    wait_for((tmp_path / "model" / "inextremis" / "unfinished.pt").exists, 90)
    training = processes(server, "monailabel.interfaces.utils.app")

    server.process.kill()

    assert len(training) == 1
    assert psutil.wait_procs(training, timeout=10)[1] == []
