"""Metrics and pictures of a training, read from the files of TensorBoard and MLflow."""

import os

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lib.trainers.trackers import GEODESIC_RGB, KEPT_RUNS, MLflowRun, Trackers, supervision_picture

NOW, LATER = 10, 20
PICTURE = np.zeros((4, 5, 3), np.uint8)


def old_runs(folder, count):
    """Make folders of earlier runs, the last the newest, and another file."""
    folder.mkdir(parents=True)
    (folder / "note.txt").write_text("not a run")
    for number in range(count):
        run = folder / f"old {number}"
        run.mkdir()
        (run / "metrics").write_text("many")
        os.utime(run, (1e9 + number, 1e9 + number))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of the models after a training, with a blank in its name."""
    folder = tmp_path_factory.mktemp("a project")
    old_runs(folder / "runs", KEPT_RUNS + 5)
    old_runs(folder / "mlartifacts", KEPT_RUNS + 5)
    parameters = {"iterations": 3, "roi_size": "16x16x16"}
    mlflow = MLflowRun(f"sqlite:///{folder / 'mlruns.db'}", "inextremis", folder / "mlartifacts", "a run", parameters)
    trackers = Trackers(folder / "runs", "a run", mlflow)
    for iteration in (NOW, LATER):
        trackers.metrics({"loss": 1 / iteration, "loss dice": 0.5}, iteration)
        trackers.picture("geodesics", PICTURE, iteration)
    trackers.close(failed=False)
    return folder


def test_tensorboard_has_metrics_and_pictures(folder):
    board = EventAccumulator(str(folder / "runs" / "a run"))
    board.Reload()

    assert set(board.Tags()["scalars"]) == {"loss", "loss dice"}
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [
        (NOW, pytest.approx(1 / NOW)),
        (LATER, pytest.approx(1 / LATER)),
    ]
    assert len(board.Images("geodesics")) == 2


def mlflow_run(folder):
    client = MlflowClient(f"sqlite:///{folder / 'mlruns.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("inextremis").experiment_id])
    return client, run


def test_mlflow_has_metrics_pictures_and_parameters(folder):
    client, run = mlflow_run(folder)

    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [
        (NOW, 1 / NOW),
        (LATER, 1 / LATER),
    ]
    assert run.data.params == {"iterations": "3", "roi_size": "16x16x16"}
    assert len(client.list_artifacts(run.info.run_id, "geodesics")) == 2
    assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
    assert len(list((folder / "mlartifacts" / run.info.run_id).rglob("*.png"))) == 2


@pytest.mark.parametrize("kind", ["runs", "mlartifacts"])
def test_the_newest_runs_are_kept(folder, kind):
    kept = {path.name for path in (folder / kind).iterdir() if path.is_dir()}

    assert len(kept) == KEPT_RUNS
    assert {name for name in kept if name.startswith("old")} == {f"old {n}" for n in range(6, KEPT_RUNS + 5)}
    assert (folder / kind / "note.txt").exists()


def test_few_runs_are_all_kept(tmp_path):
    old_runs(tmp_path / "runs", 3)

    Trackers(tmp_path / "runs", "a run", None).close(failed=True)

    assert len([path for path in (tmp_path / "runs").iterdir() if path.is_dir()]) == 4


def test_picture_is_of_the_patch_and_the_slice_with_most_supervision():
    images = torch.ones(2, 1, 6, 5, 4)
    images[1, 0, :, :, 2] = torch.arange(6.0)[:, None]
    label_sets = torch.ones(2, 2, 6, 5, 4, dtype=torch.bool)
    label_sets[1, 0, 1:3, 2, 2] = False  # foreground in the slice with most foreground
    label_sets[1, 0, 4, 2, 0] = False  # foreground in another slice
    label_sets[1, 1, 5, :, 2] = False  # background

    picture = supervision_picture(images, label_sets)

    assert (picture.shape, picture.dtype) == ((5, 6, 3), np.uint8)
    rows_from_below = picture[::-1]
    for x in (1, 2, 4):
        assert tuple(rows_from_below[2, x]) == GEODESIC_RGB
    assert rows_from_below[0, 3, 0] > rows_from_below[0, 1, 0]
    assert rows_from_below[0, 5, 0] < rows_from_below[0, 4, 0], "known background is dark"


def test_without_known_foreground_there_is_no_picture():
    label_sets = torch.ones(2, 2, 6, 5, 4, dtype=torch.bool)
    label_sets[0, 1, :3] = False

    assert supervision_picture(torch.ones(2, 1, 6, 5, 4), label_sets) is None
