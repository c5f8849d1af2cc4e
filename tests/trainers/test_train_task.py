"""The training task of MONAI Label: options of a request, statistics for viewers, and error messages."""

import json
import logging
import os
import subprocess
from dataclasses import dataclass, replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lib.data.prepared_scans import PreparedScans
from lib.geometry.volume import VolumeError
from lib.infers.published_model import PublishedModel
from lib.trainers import train_task
from lib.trainers.train_task import InExtremISTrainTask
from lib.training.gate import PublishGate
from lib.training.hyperparameters import Hyperparameters
from lib.training.loop import TrainingError
from lib.training.model_folder import ModelFolder
from lib.training.record import TrainingRecord
from lib.training.run import REPORTS, Training
from tests.training.phantoms import TINY, scans


def task_in(folder, **changes):
    h = Hyperparameters.of_preset("cpu").changed({**TINY, **changes})
    models = ModelFolder(folder / "model")
    published = PublishedModel(models.published, ("lesion",))
    return InExtremISTrainTask(models, ("lesion",), PreparedScans(folder / "prepared"), h, published.current)


@dataclass
class Process:
    pid: int


@pytest.fixture
def task(tmp_path, monkeypatch):
    annotated = scans(tmp_path, 5)
    monkeypatch.setattr(train_task, "annotated_scans", lambda datastore, labels: annotated)
    monkeypatch.setattr(train_task, "processes", lambda method: {})
    return task_in(tmp_path)


def test_request_changes_hyperparameters(task):
    stats = task({"model": "inextremis", "iterations": "3", "learning_rate": 0.001}, None)

    assert task.models.versions.published_number() == 1
    assert stats["iteration"] == 3
    (run,) = TrainingRecord.load(task.models.trainings.record).runs
    assert (run.version, run.iterations) == (1, 3)


def test_statistics_of_a_finished_training(task):
    task({"iterations": 40}, None)

    stats = task.stats()
    assert stats["epoch"] == stats["total_epochs"] == REPORTS
    assert (stats["scans"], stats["held_out"]) == (4, 1)
    assert stats["loss"] > 0
    assert 0 <= stats["best_metric"] <= 1
    assert "held-out scan" in stats["verdict"]
    assert stats["total_time"] == stats["current_time"]


def test_statistics_of_a_running_training_have_no_total_time(task, monkeypatch):
    seen = []
    monkeypatch.setattr(train_task, "processes", lambda method: {"one": Process(os.getpid())})
    write = train_task.write_atomically
    monkeypatch.setattr(
        train_task, "write_atomically", lambda path, content: write(path, content) or seen.append(task.stats())
    )

    task({"iterations": 40}, None)

    epochs = [stats["epoch"] for stats in seen]
    assert epochs == sorted(epochs)
    assert set(epochs) == set(range(REPORTS + 1))
    assert all("total_time" not in stats for stats in seen[:-1])
    assert "total_time" in seen[-1]


def test_training_is_shown_from_the_start_of_its_process(task, monkeypatch):
    task({"iterations": 40}, None)
    stats = json.loads(task.models.trainings.statistics.read_text()) | {"start_ts": 1}
    task.models.trainings.statistics.write_text(json.dumps(stats))
    best = task.stats()["best_metric"]
    with subprocess.Popen(["sleep", "60"]) as process:
        monkeypatch.setattr(train_task, "processes", lambda method: {"one": process})
        shown = task.stats()
        process.kill()

    assert shown == {"epoch": 0, "total_epochs": REPORTS, "best_metric": best}


def test_best_score_is_that_of_the_published_model(task, monkeypatch):
    # During the next training, which publishes nothing, after a publication, and after a roll-back.
    task({"iterations": 40}, None)
    first = task.stats()["best_metric"]
    seen = []
    judge = PublishGate.judge

    def worse(self, candidate, kept):
        seen.append(task.stats()["best_metric"])
        return replace(judge(self, candidate, kept), publish=False)

    monkeypatch.setattr(PublishGate, "judge", worse)
    task({"iterations": 10}, None)
    assert {*seen, task.stats()["best_metric"]} == {first}

    better = lambda self, candidate, kept: replace(judge(self, candidate, kept), publish=True, score=0.99)  # noqa: E731
    monkeypatch.setattr(PublishGate, "judge", better)
    task({"iterations": 10}, None)
    assert task.stats()["best_metric"] == 0.99

    task.models.versions.roll_back(1)
    assert task.stats()["best_metric"] == first


def test_without_held_out_scans_the_best_score_is_that_on_training_scans(task):
    task.hyperparameters = task.hyperparameters.changed({"held_out_share": 0})

    task({"iterations": 40}, None)

    (run,) = TrainingRecord.load(task.models.trainings.record).runs
    assert run.judged_on[1] == "training"
    assert task.stats()["best_metric"] == run.score is not None


def test_statistics_of_the_previous_training_are_replaced(task):
    task({}, None)
    statistics = train_task._Statistics(task.models.trainings, None)

    statistics.began(4, 1)

    assert json.loads(task.models.trainings.statistics.read_text())["epoch"] == 0
    assert "verdict" not in json.loads(task.models.trainings.statistics.read_text())


@pytest.mark.parametrize("content", [None, b"half a fi"])
def test_statistics_without_a_training(task, content):
    if content is not None:
        task.models.trainings.statistics.parent.mkdir(parents=True)
        task.models.trainings.statistics.write_bytes(content)

    assert task.stats() == {"epoch": 0, "total_epochs": REPORTS, "total_time": "0:00:00"}


def test_training_that_died_is_not_shown_as_running(task, monkeypatch):
    monkeypatch.setattr(Training, "run", lambda self: self.listener.began(4, 1))
    monkeypatch.setattr(train_task._Statistics, "ended", lambda self: None)
    task({}, None)

    assert task.stats()["total_time"] == task.stats()["current_time"]


def test_options_contain_every_hyperparameter(task):
    config = task.config()

    assert config.items() >= task.hyperparameters.model_dump().items()
    assert config["pretrained"] is True
    assert task.info()["labels"] == ["lesion"]


def test_options_can_be_sent_back(task):
    offered = json.loads(json.dumps(task.config())) | {"device": task.config()["device"][0]}

    checked = task.checked_parameters(offered)
    changes = {name: value for name, value in checked.items() if name in Hyperparameters.model_fields}
    assert task.hyperparameters.changed(changes) == task.hyperparameters
    changed = task.checked_parameters({**offered, "learning_rate": "0.5", "roi_size": "24x24x24"})
    assert changed.items() >= {"learning_rate": "0.5", "roi_size": "24x24x24"}.items()


def test_another_method_sets_its_values_although_a_viewer_sends_all_options(tmp_path):
    task = task_in(tmp_path, iterations=7)
    offered = {**task.hyperparameters.model_dump(), "method": "paper", "crf_weight": 0.5}

    h = task.hyperparameters.changed(task.checked_parameters(offered))

    paper = Hyperparameters.of_preset("cpu", "paper")
    assert (h.method, h.focal_weight, h.iterations) == ("paper", paper.focal_weight, 7)
    assert h.crf_weight == 0.5


@pytest.mark.parametrize("names", [["cpu"], ["NVIDIA H100 80GB HBM3"], ["NVIDIA A10:0", "NVIDIA A10:1"]])
def test_every_offered_device_can_be_sent_back(task, monkeypatch, names):
    monkeypatch.setattr(train_task, "device_list", lambda: names)

    for name in task.config()["device"]:
        assert task.checked_parameters({"device": name}) == {"device": name}


# Options of a request


def test_request_sets_hyperparameters_and_the_device_and_nothing_else(task, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    allowed = {"iterations": 3, "device": "cuda:0", "gpus": "0,1", "pretrained": False}
    ignored = {"model": "inextremis", "tracking_uri": "http://elsewhere", "output_dir": "/", "dataset": "x"}

    assert task.checked_parameters(allowed | ignored) == allowed


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"iterations": 0}, "iterations: 0 cannot be used; Input should be greater than or equal to 1."),
        ({"roi_size": "big"}, "roi_size: 'big' cannot be used; expected three sizes in voxels, such as 96x96x32."),
        ({"iteration": 2}, "there is no setting 'iteration'; did you mean 'iterations'?"),
        ({"device": "disk:/etc"}, "device is 'disk:/etc'; expected cpu, cuda or cuda:0."),
        ({"device": ["cpu", "cuda"]}, "device is \"['cpu', 'cuda']\"; expected cpu, cuda or cuda:0."),
        ({"gpus": "0;1"}, "gpus: '0;1' cannot be used; expected all, or numbers such as 0,1."),
        ({"gpus": "0,1"}, "gpus: there is no GPU 0; this machine has no GPU."),
        ({"pretrained": "no"}, "pretrained is 'no'; expected a boolean."),
    ],
)
def test_bad_option_is_refused(task, request_, sentence):
    with pytest.raises(TrainingError) as error:
        task.checked_parameters(request_)

    assert str(error.value) == f"The training cannot start: {sentence}"


def test_training_starts_from_an_untrained_network_on_request(task):
    task({"iterations": 3}, None)
    task({"iterations": 3, "pretrained": False, "held_out_share": 0}, None)

    assert [run.iterations for run in TrainingRecord.load(task.models.trainings.record).runs] == [3, 3]


# Errors


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (TrainingError("The loss became nan; try again."), "The loss became nan; try again."),
        (VolumeError("The image one.nii cannot be read."), "The image one.nii cannot be read."),
        (
            OSError(28, "No space left on device"),
            "The training ended early: [Errno 28] No space left on device. The published model stays; make room",
        ),
        (
            torch.OutOfMemoryError("Tried to allocate 2.00 GiB"),
            "for want of GPU memory. The published model stays; train again with a smaller train_batch_size or "
            "roi_size, or start the server with a larger gpu_memory_share. (Tried to allocate 2.00 GiB)",
        ),
    ],
)
def test_failed_training_ends_with_a_sentence_in_the_log(task, monkeypatch, caplog, error, sentence):
    def fail(self):
        raise error

    monkeypatch.setattr(Training, "run", fail)

    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as ended:
        task({}, None)

    assert ended.value.code == 1
    assert sentence in caplog.records[-1].getMessage()


def test_refused_option_ends_with_a_sentence_in_the_log(task, caplog):
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit):
        task({"iterations": -1}, None)

    assert "The training cannot start: iterations: -1 cannot be used" in caplog.text


def test_event_log_has_the_loss_its_terms_the_score_and_a_picture(task):
    task({"iterations": 4, "annotated_fraction": 1, "click_mask_weight": 1, "crf_weight": 1e-4}, None)

    (run,) = task.models.trainings.events.iterdir()
    board = EventAccumulator(str(run))
    board.Reload()
    terms = ("dice", "cross_entropy", "focal", "crf", "click_mask")
    assert set(board.Tags()["scalars"]) == {"loss", *(f"loss {term}" for term in terms), "score"}
    assert {board.Scalars(name)[-1].step for name in board.Tags()["scalars"]} == {4}
    assert board.Tags()["images"] == ["geodesics"]
