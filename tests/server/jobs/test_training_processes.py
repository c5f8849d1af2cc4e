"""Update Model on a machine with two GPUs: two processes train together, and stop and end with the server.

There are no GPUs here, so that the number of GPUs is feigned: two processes train on the processor.
"""

import time

import psutil
import pytest
from monailabel.client import MONAILabelClient

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import ROOT, LocalServer
from lib.geometry.volume import load_volume
from lib.training.record import TrainingRecord
from tests.server.waiting import wait_for_training

CONF = {"roi_size": "32x32x16", "levels": "2", "base_channels": "4", "train_batch_size": "1"}

FEIGNED_GPUS = """
import torch

torch.cuda.device_count = lambda: 2
torch.cuda.get_device_name = lambda device=None: "feigned"
"""


@pytest.fixture
def site(tmp_path):
    (name,) = write_demo_studies(tmp_path / "studies", tmp_path / "truth", 1)
    feigned = tmp_path / "feigned"
    feigned.mkdir()
    (feigned / "sitecustomize.py").write_text(FEIGNED_GPUS)
    conf = {**CONF, "model_dir": str(tmp_path / "model")}
    environment = {"PYTHONPATH": f"{feigned}:{ROOT}"}
    with LocalServer(tmp_path / "studies", conf, tmp_path / "server.log", environment=environment) as server:
        client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
        clicks = simulated_extreme_points(load_volume(tmp_path / "truth" / f"{name}.nii.gz").array > 0)
        client.infer("extreme_points", name, {"lesion": clicks.tolist()})
        yield server, client, tmp_path


def ranks_of(server, count=2):
    """Wait for this number of processes of the training, and return them."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = psutil.Process(server.process.pid).children(recursive=True)
        ranks = [process for process in found if "RANK" in process.environ()]
        if len(ranks) == count:
            return ranks
        time.sleep(0.2)
    raise TimeoutError(f"The training has no {count} processes.")


def test_all_gpus_train_one_model(site):
    server, client, folder = site

    client.train_start("inextremis", {"iterations": 20})
    ranks = ranks_of(server)
    task = wait_for_training(server.url)

    assert task["status"] == "DONE", "\n".join(task["details"])
    assert len({rank.pid for rank in ranks}) == 2
    (run,) = TrainingRecord.load(folder / "model" / "inextremis" / "record.json").runs
    assert run.version == 1
    stats = client.info()["train_stats"]["inextremis"]
    assert stats["epoch"] == stats["total_epochs"] and "total_time" in stats


@pytest.mark.parametrize("end", ["stop", "server is killed"])
def test_all_processes_end_with_the_training(site, end):
    server, client, _ = site
    client.train_start("inextremis", {"iterations": 100_000})
    ranks = ranks_of(server)

    client.train_stop() if end == "stop" else server.process.kill()

    _, alive = psutil.wait_procs(ranks, timeout=30)
    assert not alive
