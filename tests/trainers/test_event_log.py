"""Metrics and pictures of a training, read from the files of TensorBoard."""

import os

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lib.trainers.event_log import GEODESIC_RGB, KEPT_RUNS, EventLog, supervision_picture

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
    """Folder of runs after a training, with a blank in its name."""
    folder = tmp_path_factory.mktemp("a project") / "runs"
    old_runs(folder, KEPT_RUNS + 5)
    events = EventLog(folder, "a run")
    for iteration in (NOW, LATER):
        events.metrics({"loss": 1 / iteration, "loss dice": 0.5}, iteration)
        events.picture("geodesics", PICTURE, iteration)
    events.close()
    return folder


def test_tensorboard_has_metrics_and_pictures(folder):
    board = EventAccumulator(str(folder / "a run"))
    board.Reload()

    assert set(board.Tags()["scalars"]) == {"loss", "loss dice"}
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [
        (NOW, pytest.approx(1 / NOW)),
        (LATER, pytest.approx(1 / LATER)),
    ]
    assert len(board.Images("geodesics")) == 2


def test_the_newest_runs_are_kept(folder):
    kept = {path.name for path in folder.iterdir() if path.is_dir()}

    assert len(kept) == KEPT_RUNS
    assert {name for name in kept if name.startswith("old")} == {f"old {n}" for n in range(6, KEPT_RUNS + 5)}
    assert (folder / "note.txt").exists()


def test_few_runs_are_all_kept(tmp_path):
    old_runs(tmp_path / "runs", 3)

    EventLog(tmp_path / "runs", "a run").close()

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
