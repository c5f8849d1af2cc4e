"""The server is stopped while it scores scans: it ends at once, and then the scoring."""

import signal
import time

import psutil
import pytest
import torch

from lib.demo.local_server import LocalServer
from lib.demo.studies import write_demo_studies
from lib.networks.checkpoint import TrainedModel, save_checkpoint
from lib.networks.spec import NetworkSpec


@pytest.fixture
def server(tmp_path):
    """A server with a model, which scores its studies from the start."""
    write_demo_studies(tmp_path / "studies", tmp_path / "truth", 6)
    (tmp_path / "model").mkdir()
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (32, 32, 16), levels=2, base_channels=4)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "model" / "inextremis.pt", TrainedModel(spec, spec.build(), 1))
    conf = {"model_dir": str(tmp_path / "model"), "tracking": "None"}
    with LocalServer(tmp_path / "studies", conf, tmp_path / "server.log") as server:
        yield server


def scoring_processes(server):
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [child for child in children if any("spawn_main" in word for word in child.cmdline())]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_and_then_the_scoring(server, end):
    give_up = time.monotonic() + 60
    while not (scoring := scoring_processes(server)):
        assert time.monotonic() < give_up
        time.sleep(0.05)

    server.process.send_signal(end)

    # Python's own end, which a SIGINT brings about, took 4 to 8 s.
    assert server.process.wait(3) == -signal.SIGTERM
    # It notices once it has imported torch.
    assert psutil.wait_procs(scoring, timeout=30)[1] == []
