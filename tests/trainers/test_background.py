"""Priority, memory and end of the training process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def output_of(program):
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout


PROCESS = """
import os, torch
from lib.trainers.background import run_at_low_priority
before = os.nice(0)
run_at_low_priority()
print(os.nice(0) - before, os.cpu_count() - torch.get_num_threads(), torch.tensor(1e-40).mul(1).item())
"""


def test_training_has_low_priority_leaves_a_core_and_flushes_denormals():
    niceness, free_cores, denormal = output_of(PROCESS).split()

    assert int(niceness) > 0
    assert int(free_cores) == (1 if os.cpu_count() > 1 else 0)
    assert float(denormal) == 0


# Simulates two GPUs.
WITH_GPUS = """
import torch
from lib.trainers.background import run_at_low_priority
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 2
torch.cuda.set_per_process_memory_fraction = lambda share, device: print(device, share)
run_at_low_priority(0.6)
"""


def test_training_leaves_a_share_of_the_memory_of_each_gpu():
    assert output_of(WITH_GPUS).splitlines() == ["0 0.6", "1 0.6"]


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
    ids=["server runs", "no server", "server ended during the start"],
)
def test_training_ends_with_its_server(monkeypatch, server, says):
    if server is None:
        monkeypatch.delenv("INEXTREMIS_SERVER_PID", raising=False)
    else:
        monkeypatch.setenv("INEXTREMIS_SERVER_PID", server)

    found = subprocess.run([sys.executable, "-c", TRAINING], cwd=ROOT, capture_output=True, text=True)

    assert found.stdout.strip() == says
