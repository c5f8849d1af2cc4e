"""A network whose weights are not finite is neither published nor used."""

import pytest
import torch

from lib.networks.checkpoint import CheckpointError, is_finite, load_checkpoint, save_checkpoint
from lib.training.loop import TrainingError
from lib.training.run import require_finite
from tests.training.phantoms import untrained

NO_NUMBERS = [float("nan"), float("inf"), float("-inf")]


def broken(value):
    """Make a model with a weight of this value."""
    model = untrained()
    with torch.no_grad():
        list(model.network.parameters())[-1].view(-1)[-1] = value
    return model


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_its_file_cannot_be_loaded(tmp_path, value):
    save_checkpoint(tmp_path / "model.pt", broken(value))

    with pytest.raises(CheckpointError, match="its weights are not finite"):
        load_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_its_training_ends_with_a_sentence(value):
    with pytest.raises(TrainingError, match="^The weights became infinite; try again with a lower learning_rate"):
        require_finite(broken(value).network)


def test_weights_may_be_large():
    assert is_finite(broken(3e38).network)
