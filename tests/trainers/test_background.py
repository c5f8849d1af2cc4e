"""Manners of the training process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROCESS = """
import os, torch
from lib.trainers.background import yield_to_annotators
before = os.nice(0)
yield_to_annotators()
print(os.nice(0) - before, os.cpu_count() - torch.get_num_threads(), torch.tensor(1e-40).mul(1).item())
"""


def test_training_leaves_the_first_turn_and_a_core_to_annotators_and_denormals_aside():
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", PROCESS], cwd=root, capture_output=True, text=True, check=True)

    niceness, free_cores, denormal = found.stdout.split()
    assert int(niceness) > 0
    # A machine of one core has none to leave.
    assert int(free_cores) == (1 if os.cpu_count() > 1 else 0)
    assert float(denormal) == 0


# No GPU is needed: torch is told that there are two, and what is asked of it is written down.
WITH_GPUS = """
import torch
from lib.trainers.background import yield_to_annotators
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 2
torch.cuda.set_per_process_memory_fraction = lambda share, device: print(device, share)
yield_to_annotators(0.6)
"""


def test_training_leaves_a_share_of_the_memory_of_each_gpu():
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", WITH_GPUS], cwd=root, capture_output=True, text=True, check=True)

    assert found.stdout.splitlines() == ["0 0.6", "1 0.6"]


TRAINING = """
import time
from lib.trainers.background import end_with_server
end_with_server()
time.sleep(2)
print("goes on")
"""


@pytest.mark.parametrize(
    ("server", "says"),
    [(str(os.getpid()), "goes on"), (None, "goes on"), ("1234567890", "")],
    ids=["it runs", "there is none", "it ended while the training started"],
)
def test_training_goes_on_while_its_server_runs(monkeypatch, server, says):
    if server is None:
        monkeypatch.delenv("INEXTREMIS_SERVER_PID", raising=False)
    else:
        monkeypatch.setenv("INEXTREMIS_SERVER_PID", server)
    root = Path(__file__).parents[2]

    found = subprocess.run([sys.executable, "-c", TRAINING], cwd=root, capture_output=True, text=True)

    assert found.stdout.strip() == says
