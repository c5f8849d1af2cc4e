"""The published network: replaced in one step, the last few kept, and any of those brought back."""

import os

import pytest
import torch

from lib.networks.checkpoint import CheckpointError, NetworkSpec, TrainedModel, TrainingState, load_checkpoint
from lib.networks.checkpoint import load_training_state as training_state
from lib.networks.versions import ModelVersions

SPEC = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=2)


def model(version):
    torch.manual_seed(version)
    return TrainedModel(SPEC, SPEC.build().eval(), version)


def publish(versions, count):
    for _ in range(count):
        number = versions.next_number()
        versions.publish(model(number), TrainingState({}, 10 * number))


@pytest.fixture
def versions(tmp_path):
    return ModelVersions(tmp_path / "model" / "inextremis.pt", keep=3)


def test_there_is_nothing_before_the_first(versions):
    assert versions.numbers() == []
    assert versions.next_number() == 1


def test_the_last_few_are_kept(versions):
    publish(versions, 5)

    assert versions.numbers() == [3, 4, 5]
    assert load_checkpoint(versions.published_path).version == 5


def test_a_version_brought_back_answers_and_is_trained_on_as_before(versions):
    publish(versions, 3)

    versions.roll_back(2)

    image = torch.randn(1, 1, 16, 16, 16)
    published = load_checkpoint(versions.published_path)
    torch.testing.assert_close(published.network(image), model(2).network(image), rtol=0, atol=0)
    assert published.version == 2
    assert training_state(versions.published_path).iterations == 20


def test_after_a_roll_back_no_number_is_used_twice(versions):
    publish(versions, 3)
    versions.roll_back(1)

    assert versions.next_number() == 4


def test_a_model_put_there_by_hand_can_be_brought_back(versions):
    publish(versions, 2)
    for number in versions.numbers():
        versions.path(number).unlink()

    publish(versions, 1)

    assert versions.numbers() == [2, 3]


def test_a_version_that_is_not_kept_or_broken_leaves_what_is_published(versions):
    publish(versions, 2)
    before = versions.published_path.read_bytes()
    versions.path(1).write_bytes(b"half a mod")

    with pytest.raises(FileNotFoundError):
        versions.roll_back(7)
    with pytest.raises(CheckpointError, match=r"0001\.pt cannot be used"):
        versions.roll_back(1)
    assert versions.published_path.read_bytes() == before


def test_a_full_disk_leaves_the_old_model_published(versions, monkeypatch):
    publish(versions, 1)

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        publish(versions, 1)

    assert load_checkpoint(versions.published_path).version == 1
