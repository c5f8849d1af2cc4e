"""Number of processes of a training, and allowed GPUs."""

import pytest
import torch

from lib.trainers.processes import GPUError, processes_of, require_gpus


@pytest.fixture
def gpus(monkeypatch):
    """Set the number of GPUs."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("device", "there", "processes"),
    [(None, 0, 1), (None, 1, 1), (None, 3, 3), ("", 3, 3), ("cuda", 3, 3), ("cuda:1", 3, 1), ("cpu", 3, 1)],
)
def test_one_process_per_gpu_unless_a_request_names_one_device(gpus, device, there, processes):
    gpus(there)

    assert processes_of({"device": device} if device is not None else {}).count == processes
    assert processes_of({"device": [device, "cpu"]}).count == max(1, there)  # viewers send the list of options back


@pytest.mark.parametrize(("named", "there"), [("all", 0), ("all", 2), ("0", 1), ("0,1", 2), ("3,1", 4)])
def test_existing_gpus_are_allowed(gpus, named, there):
    gpus(there)

    assert require_gpus(named) == named


@pytest.mark.parametrize(
    ("named", "there", "sentence"),
    [
        ("0", 0, "there is no GPU 0; this machine has no GPU"),
        ("0,1", 1, "there is no GPU 1; this machine has GPU 0 only"),
        ("0,7", 4, "there is no GPU 7; this machine has GPUs 0 to 3"),
        ("1,1", 2, "1,1 names a GPU twice; expected each once"),
        ("", 2, "'' cannot be used; expected all, or numbers such as 0,1"),
        ("0,", 2, "'0,' cannot be used; expected all, or numbers such as 0,1"),
        (0, 2, "'0' cannot be used; expected all, or numbers such as 0,1"),
    ],
)
def test_other_gpus_are_refused(gpus, named, there, sentence):
    gpus(there)

    with pytest.raises(GPUError) as error:
        require_gpus(named)
    assert str(error.value) == sentence
