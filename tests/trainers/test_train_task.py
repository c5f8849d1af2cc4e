"""A training that cannot go on says why, and what to do."""

import logging

import pytest
import torch
from monailabel.tasks.train.basic_train import BasicTrainTask

from lib.annotations.store import AnnotationStore
from lib.networks.versions import ModelVersions
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.train_task import InExtremISTrainTask


def test_gpu_that_is_too_small_ends_it_with_a_sentence(tmp_path, monkeypatch, caplog):
    """No GPU is needed: its error comes from where the training would run."""

    def run_out(task, request, datastore):
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")

    monkeypatch.setattr(BasicTrainTask, "__call__", run_out)
    versions, store = ModelVersions(tmp_path / "inextremis.pt"), AnnotationStore(tmp_path / "extreme_points")
    trainer = InExtremISTrainTask(versions, ("lesion",), store, Hyperparameters.of_preset("cpu"), "None")

    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit):
        trainer({"model": "inextremis"}, None)

    assert (
        "for want of GPU memory. The published model stays; train again with a smaller train_batch_size" in caplog.text
    )
    assert "Tried to allocate 2.00 GiB" in caplog.text
