"""What a training shows of itself, read back from TensorBoard's and MLflow's files."""

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lib.annotations.store import AnnotationStore
from lib.networks.versions import ModelVersions
from lib.server.open_studies import open_studies
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.trackers import GEODESIC_RGB, supervision_picture
from lib.trainers.train_task import InExtremISTrainTask
from tests.trainers.phantoms import scan

EPOCHS = 2
LOSSES = {"loss dice", "loss cross_entropy", "loss focal", "loss crf"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the models after a training, whose name holds a blank as users' folders do."""
    root = tmp_path_factory.mktemp("a project")
    (root / "studies").mkdir()
    store = AnnotationStore(root / "studies" / "labels" / "extreme_points")
    for number in range(5):
        for annotation in scan(root / "studies", f"scan_{number}").annotations:
            store.save(annotation)
    changes = {"max_epochs": EPOCHS, "iterations_per_epoch": 3, "roi_size": "32x32x16", "levels": 2}
    h = Hyperparameters.of_preset("cpu").changed(changes)
    versions = ModelVersions(root / "model" / "inextremis.pt")
    trainer = InExtremISTrainTask(versions, ("lesion",), store, h, tracking="mlflow")
    trainer({"model": "inextremis"}, open_studies(str(root / "studies"), ("lesion",), None))
    return root / "model"


def test_tensorboard_shows_loss_parts_agreement_and_geodesics(trained):
    board = EventAccumulator(str(next(trained.rglob("events_*"))))
    board.Reload()

    assert set(board.Tags()["scalars"]) >= {*LOSSES, "agreement"}
    first, last = (event.step for event in board.Scalars("loss crf"))
    assert last == 2 * first
    assert len(board.Images("geodesics")) == EPOCHS


def test_mlflow_shows_the_same(trained):
    client = MlflowClient(f"sqlite:///{trained / 'mlruns.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("inextremis").experiment_id])

    assert run.data.metrics.keys() >= {*LOSSES, "agreement", "Loss"}
    assert len(client.list_artifacts(run.info.run_id, "geodesics")) == EPOCHS


def test_pictures_stay_in_the_folder_of_the_models(trained):
    assert len(list((trained / "mlartifacts").rglob("*.png"))) == EPOCHS


def test_picture_is_of_the_patch_and_the_slice_with_most_supervision():
    images = torch.ones(2, 1, 6, 5, 4)
    images[1, 0, :, :, 2] = torch.arange(6.0)[:, None]
    targets = torch.full((2, 6, 5, 4), -1)
    targets[1, 1:3, 2, 2] = 1
    targets[1, 4, 2, 0] = 1
    targets[1, 5, :, 2] = 0

    picture = supervision_picture(images, targets)

    assert (picture.shape, picture.dtype) == ((5, 6, 3), np.uint8)
    rows_from_below = picture[::-1]
    for x in (1, 2, 4):
        assert tuple(rows_from_below[2, x]) == GEODESIC_RGB
    assert rows_from_below[0, 3, 0] > rows_from_below[0, 1, 0]
    assert rows_from_below[0, 5, 0] < rows_from_below[0, 4, 0], "what is known to be background is dark"
