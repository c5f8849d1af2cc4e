"""A training process that is killed by a signal is logged."""

import logging
import subprocess
import sys
import threading
import time
from collections import deque

import pytest
from monailabel.utils.async_tasks import utils as monai_label

from lib.trainers import process_end
from lib.trainers.process_end import report_end_in_background

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(process_end, "POLL_S", 0.5)


def run(monkeypatch, program, status="ERROR"):
    """Run a task that waits, then has a process, and has `status` when the process has ended."""
    task, processes = {"id": "one", "status": "SUBMITTED"}, {}
    monkeypatch.setitem(monai_label.background_processes, "train", processes)
    report_end_in_background(task)
    (reporter,) = [thread for thread in threading.enumerate() if thread.name == "training-end"]
    time.sleep(0.1)
    processes["one"] = process = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(1); {program}"])
    task |= {"status": "RUNNING", "details": deque(["the last line"], maxlen=20)}
    process.wait()
    time.sleep(0.05)
    processes.clear()
    task |= {"status": status, "end_ts": "now"}
    reporter.join(10)
    return task


def killed_by(name):
    return f"import os, signal; os.kill(os.getpid(), signal.{name})"


@pytest.mark.parametrize(
    ("name", "words"),
    [("SIGKILL", "signal 9 (SIGKILL), perhaps for lack of memory. "), ("SIGSEGV", "signal 11 (SIGSEGV). ")],
)
def test_signal_is_logged(monkeypatch, caplog, name, words):
    with caplog.at_level(logging.ERROR):
        task = run(monkeypatch, killed_by(name))

    assert len(caplog.records) == 1
    assert f"The training ended before its time: its process was killed by {words}" in caplog.text
    assert "The published model stays, and the next training continues after the last epoch" in caplog.text
    assert task["details"][-1] == caplog.records[0].message


@pytest.mark.parametrize(
    ("program", "status"), [("pass", "DONE"), ("raise SystemExit(1)", "ERROR"), (killed_by("SIGKILL"), "STOPPED")]
)
def test_other_ends_are_not_logged(monkeypatch, caplog, program, status):
    with caplog.at_level(logging.ERROR):
        task = run(monkeypatch, program, status)

    assert caplog.text == ""
    assert list(task["details"]) == ["the last line"]
