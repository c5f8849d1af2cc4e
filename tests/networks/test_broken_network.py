"""A network whose weights are no numbers is neither published nor used."""

import pytest
import torch

from lib.networks.checkpoint import CheckpointError, TrainedModel, load_checkpoint, save_checkpoint
from lib.networks.spec import NetworkSpec
from lib.trainers.publishing import judge


def network(value):
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=2)
    built = spec.build()
    with torch.no_grad():
        next(iter(built.parameters())).fill_(value)
    return TrainedModel(spec, built, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_file_of_it_cannot_be_loaded(tmp_path, value):
    save_checkpoint(tmp_path / "model.pt", network(value))

    with pytest.raises(CheckpointError, match="its weights are not finite"):
        load_checkpoint(tmp_path / "model.pt")


def test_score_that_is_no_number_is_worse(monkeypatch):
    scores = iter([float("nan"), 0.1])
    monkeypatch.setattr("lib.trainers.publishing.agreement", lambda *arguments: next(scores))

    assert judge(network(0.0), network(0.0), [], [], tolerance=1.0).publish is False
