"""`scripts/train.sh`: training without a server, in one process and in several that train together."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import free_port
from lib.geometry.volume import load_volume
from lib.networks.checkpoint import load_checkpoint, load_training_state
from lib.networks.versions import ModelVersions
from lib.server.studies.open_studies import open_studies
from lib.training.record import TrainingRecord

ROOT = Path(__file__).parents[2]
TINY = {
    "roi_size": "32x32x16",
    "levels": "2",
    "base_channels": "4",
    "held_out_share": "0",
    "mixed_precision": "false",
    "max_minutes": "0",
}


@pytest.fixture
def site(tmp_path):
    """Four studies, each with clicks on its lesion."""
    folder = tmp_path / "studies"
    names = write_demo_studies(folder, tmp_path / "truth", 4)
    opened = open_studies(str(folder), ("lesion",), None)
    for name in names:
        image = load_volume(folder / f"{name}.nii.gz")
        clicks = simulated_extreme_points(load_volume(tmp_path / "truth" / f"{name}.nii.gz").array > 0)
        points = ExtremePoints.from_clicks("lesion", clicks)
        opened.clicks.save(Annotation.now(name, points, image.geometry, "reader"))
    return folder


def command(studies, model_dir, *options, **conf):
    conf = {**TINY, "model_dir": str(model_dir), **{name: str(value) for name, value in conf.items()}}
    words = [word for pair in conf.items() for word in ("--conf", *pair)]
    return [sys.executable, str(ROOT / "scripts" / "train.py"), str(studies), *words, *options]


def start(*arguments, **conf):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(arguments[1].parent)}
    return subprocess.Popen(
        command(*arguments, **conf), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def train(*arguments, **conf):
    process = start(*arguments, **conf)
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


def weights(model_dir):
    network = load_checkpoint(model_dir / "inextremis.pt").network
    return torch.cat([weight.detach().flatten() for weight in network.state_dict().values()])


def record(model_dir):
    return TrainingRecord.load(model_dir / "inextremis" / "record.json")


def test_two_processes_learn_what_one_does_from_the_doubled_batch(site, tmp_path):
    of_two, of_one, fewer = (tmp_path / name / "model" for name in ("two", "one", "fewer"))

    code, said = train(site, of_two, "--nproc-per-node", "2", iterations=5, train_batch_size=1)
    assert code == 0, said
    for folder, size in ((of_one, 2), (fewer, 1)):
        code, said = train(site, folder, iterations=5, train_batch_size=size)
        assert code == 0, said

    assert (weights(of_two) - weights(of_one)).abs().max() < 1e-5
    assert (weights(fewer) - weights(of_one)).abs().max() > 1e-4  # the other half of the batch counts
    (run,) = record(of_two).runs
    assert (run.version, run.iterations) == (1, 5)
    assert ModelVersions(of_two / "inextremis.pt").numbers() == [1]
    assert said.count("Version 1 is published") == 1
    assert not list(of_two.parent.glob("torchelastic*"))


def test_two_machines_meet_and_train_one_network(site, tmp_path):
    """Two commands on this machine, as on two that see the same folders."""
    model, port = tmp_path / "model", free_port()
    options = ("--nnodes", "2", "--rdzv-endpoint", f"127.0.0.1:{port}")

    machines = [start(site, model, *options, iterations=3, train_batch_size=1) for _ in range(2)]
    said = [machine.communicate(timeout=300)[0] for machine in machines]

    assert [machine.returncode for machine in machines] == [0, 0], said
    assert "".join(said).count("Version 1 is published") == 1
    assert len(record(model).runs) == 1


def ranks_of(process):
    """Return the processes that train, as soon as there are two."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        ranks = [child for child in psutil.Process(process.pid).children() if "train" in child.cmdline()]
        if len(ranks) == 2:
            return sorted(ranks, key=lambda rank: int(rank.environ()["RANK"]))
        time.sleep(0.1)
    raise TimeoutError("The processes of the training did not start.")


@pytest.mark.parametrize("rank", [0, 1])
def test_killed_process_ends_the_training_and_the_next_goes_on(site, tmp_path, rank):
    model = tmp_path / "model"
    process = start(site, model, "--nproc-per-node", "2", iterations=400, train_batch_size=1)
    ranks = ranks_of(process)
    unfinished = model / "inextremis" / "unfinished.pt"
    while not unfinished.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)

    ranks[rank].send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=120)

    assert process.returncode == 1
    assert f"process {rank} of 2 was killed by signal 9 (SIGKILL), perhaps for lack of memory" in said
    assert "The published model stays, and the next training continues after the last epoch of this one." in said
    assert not any(other.is_running() for other in ranks)
    assert not (model / "inextremis.pt").exists() and record(model).runs == ()
    done = load_training_state(unfinished).iterations

    code, said = train(site, model, "--nproc-per-node", "2", iterations=10, train_batch_size=1)
    assert code == 0 and "A training that was interrupted continues." in said
    (run,) = record(model).runs
    assert run.iterations > done and not unfinished.exists()


def test_stopped_training_says_so_and_leaves_no_process(site, tmp_path):
    process = start(site, tmp_path / "model", "--nproc-per-node", "2", iterations=400, train_batch_size=1)
    ranks = ranks_of(process)

    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)

    assert process.returncode == 130 and "The training was stopped." in said
    assert "Traceback" not in said
    assert not any(rank.is_running() for rank in ranks)


def test_second_training_of_a_project_is_refused(site, tmp_path):
    model = tmp_path / "model"
    first = start(site, model, iterations=20_000, train_batch_size=1)
    try:
        while not (model / "inextremis" / "record.json").exists():
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.1)

        code, said = train(site, model, iterations=2)

        assert code == 1 and "Another training of this project runs; wait for its end, or stop it." in said
    finally:
        first.kill()
        first.communicate()


@pytest.mark.parametrize(
    ("options", "conf", "sentence"),
    [
        (["--conf", "levles", "3"], {}, "--conf levles: there is no such setting; did you mean 'levels'?"),
        ([], {"gpus": "0,1"}, r"--conf gpus: there is no GPU \d; this machine has "),
        ([], {"gpus": "0;1"}, "--conf gpus: '0;1' cannot be used"),
        (["--nnodes", "2"], {}, "--nnodes needs --rdzv-endpoint HOST:PORT"),
        (["--nproc-per-node", "0"], {}, "'0' cannot be used; expected a whole number from 1"),
        ([], {"review": "true"}, "A project of readings for review has no model to train"),
    ],
)
@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="has the GPUs that are refused")
def test_what_cannot_be_trained_with_is_refused(site, tmp_path, options, conf, sentence):
    code, said = train(site, tmp_path / "model", *options, **conf)

    assert code == 2 and re.search(sentence, said), said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [("nowhere", 2, "is not there; expected a folder"), ("unclicked", 1, "There is nothing to learn from")],
)
def test_studies_without_annotations_and_no_studies_are_told_apart(tmp_path, name, code, sentence):
    write_demo_studies(tmp_path / "unclicked", tmp_path / "truth", 1)

    found, said = train(tmp_path / name, tmp_path / "model", iterations=1)

    assert found == code and sentence in said
    assert "Traceback" not in said
