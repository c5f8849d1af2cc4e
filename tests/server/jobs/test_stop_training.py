"""Stop ends a training at any moment after its start was answered, also before it has a process."""

import subprocess
import sys
import threading
import time

import pytest
from monailabel.utils.async_tasks import utils as monai_label

from lib.server.jobs.training_process import stop_training


@pytest.fixture
def queue(monkeypatch):
    """Tasks and processes of trainings, in MONAI Label's own form."""
    tasks, processes = [], {}
    monkeypatch.setitem(monai_label.background_tasks, "train", tasks)
    monkeypatch.setitem(monai_label.background_processes, "train", processes)
    yield tasks, processes
    for process in processes.values():
        process.kill()


def start(task, processes, after_s=0.0):
    time.sleep(after_s)
    processes[task["id"]] = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    task["status"] = "RUNNING"
    return processes[task["id"]]


def test_training_that_is_just_starting_is_ended(queue):
    tasks, processes = queue
    tasks.append({"id": "one", "status": "SUBMITTED"})
    starter = threading.Thread(target=start, args=(tasks[0], processes, 0.5))
    starter.start()

    stopped = stop_training()

    starter.join()
    assert stopped is not None and (stopped["id"], stopped["status"]) == ("one", "STOPPED")
    assert not processes


def test_training_that_runs_is_ended_and_not_the_one_behind_it(queue):
    tasks, processes = queue
    tasks += [{"id": "one", "status": "SUBMITTED"}, {"id": "two", "status": "SUBMITTED"}]
    process = start(tasks[0], processes)

    assert stop_training()["id"] == "one"

    assert process.wait(10) < 0
    assert [task["status"] for task in tasks] == ["STOPPED", "SUBMITTED"]


@pytest.mark.parametrize("status", ["DONE", "ERROR", "STOPPED"])
def test_nothing_is_ended_where_none_runs(queue, status):
    tasks, _ = queue
    tasks.append({"id": "one", "status": status})

    assert stop_training() is None
    assert tasks[0]["status"] == status
