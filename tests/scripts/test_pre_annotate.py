"""scripts/pre_annotate.py on real workers: broken studies, kills at any moment, an end by Ctrl-C, an archive."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from lib.annotations.proposal import Proposal
from lib.demo.local_server import free_port
from lib.geometry.volume import load_volume
from lib.networks.checkpoint import load_checkpoint
from lib.preannotation.pending import pending_studies
from lib.server.studies.open_studies import open_studies
from scripts.pre_annotate import main
from tests.preannotation.projects import proposed, publish, tiny_project, unfinished
from tests.server.archive.dicomweb import FakeDICOMweb, served

ROOT = Path(__file__).parents[2]
MANY = 60
TIMEOUT_S = 300


def end(process):
    """Return a process and its children, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def running(studies, *options, **environment):
    """Start the script, and end it with the block."""
    command = [sys.executable, str(ROOT / "scripts" / "pre_annotate.py"), str(studies), *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)
        process.stdout.close()


def run(studies, *options, **environment):
    """Exit status and what was said."""
    with running(studies, *options, **environment) as process:
        said, _ = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, said


def wait_for(condition, timeout_s=TIMEOUT_S):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "It takes too long."
        time.sleep(0.05)


def workers_of(process):
    """Return the processes of the script's workers."""
    return [child for child in psutil.Process(process.pid).children(recursive=True) if is_worker(child)]


def is_worker(process):
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return False


def assert_complete(folder, count):
    """Every study has one whole mask of its own."""
    assert proposed(folder) == {f"s{number:04d}" for number in range(count)}
    assert unfinished(folder) == []
    studies = open_studies(str(folder), ("lesion",), None)
    for image_id in proposed(folder):
        assert studies.masks("proposal").load(image_id).array.shape == (24, 24, 24)
        assert Proposal.of(studies.masks("proposal").record(image_id).info) is not None
    assert pending_studies(studies, load_checkpoint(folder / "model" / "inextremis.pt")) == []


def test_broken_studies_are_named_and_the_rest_is_done(tmp_path):
    folder = tiny_project(tmp_path / "my studies", 6, broken=2)
    status, said = run(folder)

    assert status == 1
    assert "6 proposals stored" in said and "2 studies failed." in said
    for number in range(2):
        assert f"broken{number}: The image broken{number}.nii.gz cannot be read" in said
    told = json.loads((folder / ".inextremis" / "pre_annotation.json").read_text())
    assert (told["running"], told["total"], told["done"], told["stored"], told["n_failed"]) == (False, 8, 8, 6, 2)
    (line,) = (folder / "audit" / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["action"] == "proposals"

    for number in range(2):
        (folder / f"broken{number}.nii.gz").unlink()
    assert_complete(folder, 6)
    assert main([str(folder)]) == 0  # without a worker, as nothing is left


def test_kill_of_workers_costs_no_study(tmp_path):
    folder = tiny_project(tmp_path / "studies", MANY)
    with running(folder, "--workers", "2") as process:
        for mark in (3, 10):
            wait_for(lambda mark=mark: len(proposed(folder)) >= mark)
            for worker in workers_of(process)[:1]:
                worker.kill()
        said, _ = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 0, said
    assert_complete(folder, MANY)


def test_kill_of_the_script_ends_its_workers_and_the_next_run_goes_on(tmp_path):
    folder = tiny_project(tmp_path / "studies", MANY)
    with running(folder, "--workers", "2") as process:
        wait_for(lambda: len(proposed(folder)) >= 5)
        workers = workers_of(process)
        assert len(workers) == 2
        process.kill()
        process.wait()
        psutil.wait_procs(workers, timeout=30)
        assert not any(worker.is_running() for worker in workers)
    (folder / "labels" / "proposal" / ".0123456789abcdef.part").write_bytes(b"half a mask")
    before = {path: path.stat().st_mtime_ns for path in (folder / "labels" / "proposal").glob("*.nii.gz")}
    assert 5 <= len(before) < MANY

    status, said = run(folder)
    assert status == 0 and f"{MANY - len(before)} proposals stored" in said
    assert_complete(folder, MANY)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_ctrl_c_ends_it_with_a_sentence(tmp_path):
    folder = tiny_project(tmp_path / "studies", MANY)
    with running(folder, "--workers", "1") as process:
        wait_for(lambda: len(proposed(folder)) >= 2)
        workers = workers_of(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "the same command continues." in said and "Traceback" not in said
    assert not any(worker.is_running() for worker in workers)
    assert unfinished(folder) == []


def test_it_listens_on_loopback_only(tmp_path):
    folder = tiny_project(tmp_path / "studies", MANY)
    with running(folder, "--workers", "1") as process:
        wait_for(lambda: len(proposed(folder)) >= 1)
        processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        listening = {
            connection.laddr.ip
            for one in processes
            for connection in one.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}


@contextmanager
def dask_process(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def test_scheduler_that_is_killed_costs_the_studies_in_hand_only(tmp_path):
    folder, port = tiny_project(tmp_path / "studies", MANY), free_port()
    address = f"tcp://127.0.0.1:{port}"
    arguments = ("--host", "127.0.0.1", "--no-dashboard")
    worker = (*arguments, "--nthreads", "1", "--local-directory", str(tmp_path), "--death-timeout", "60")
    with (
        dask_process("scheduler", *arguments, "--port", str(port)) as scheduler,
        dask_process("worker", address, *worker),
        running(folder, "--scheduler", address) as process,
    ):
        wait_for(lambda: len(proposed(folder)) >= 3)
        os.killpg(scheduler.pid, signal.SIGKILL)
        said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 2, said
    assert "The scheduler has ended." in said and "Traceback" not in said
    assert len(proposed(folder)) < MANY

    assert run(folder)[0] == 0
    assert_complete(folder, MANY)


def test_series_of_an_archive_are_proposed_and_their_volumes_not_kept(tmp_path):
    archive, cache = FakeDICOMweb(), tmp_path / "cache"
    uids = {archive.add("anna"), archive.add("bert")}
    project = tmp_path / "project"
    publish(project)
    with served(archive) as address:
        status, said = run(
            address,
            *("--conf", "project_dir", str(project)),
            MONAI_LABEL_DICOMWEB_CACHE_PATH=str(cache),
        )

    assert status == 0, said
    assert proposed(project) == uids
    assert list(cache.rglob("*.nii.gz")) == []
    for uid in uids:
        assert load_volume(project / "labels" / "proposal" / f"{uid}.nii.gz").array.shape == (10, 9, 8)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--conf", "labels", "tumour"], "The model was trained for the labels lesion, and --conf labels is tumour"),
        (["--conf", "lables", "tumour"], "did you mean 'labels'?"),
        (["--scheduler", "tcp://127.0.0.1:1"], "The scheduler tcp://127.0.0.1:1 does not answer"),
    ],
)
def test_what_cannot_begin_says_why(tmp_path, capsys, monkeypatch, options, expected):
    monkeypatch.setattr("lib.preannotation.cluster.CONNECT_TIMEOUT_S", 1)
    folder = tiny_project(tmp_path / "studies", 1)

    assert main([str(folder), *options]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())


def test_project_without_a_model_is_refused(tmp_path, capsys):
    (tmp_path / "studies").mkdir()

    assert main([str(tmp_path / "studies")]) == 2
    assert "There is no trained model" in capsys.readouterr().err


def test_limit_and_order(tmp_path):
    folder = tiny_project(tmp_path / "studies", 4)

    assert run(folder, "--limit", "2", "--workers", "1")[0] == 0
    assert proposed(folder) == {"s0000", "s0001"}
