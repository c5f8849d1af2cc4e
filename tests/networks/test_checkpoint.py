"""Files of trained networks: written atomically, and read without executing code."""

import contextlib
import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib.networks.checkpoint import (
    FORMAT_VERSION,
    CheckpointError,
    NetworkSpec,
    TrainedModel,
    TrainingState,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
)
from tests.full_disk import no_space


@pytest.fixture
def spec():
    return NetworkSpec.plan(("lesion", "cyst"), (0.9, 0.9, 6.5), (16, 16, 4), levels=3, base_channels=2)


@pytest.fixture
def model(spec):
    torch.manual_seed(0)
    return TrainedModel(spec, spec.build().eval(), version=3, score=0.75)


@pytest.fixture
def path(tmp_path, model):
    save_checkpoint(tmp_path / "models" / "inextremis.pt", model)
    return tmp_path / "models" / "inextremis.pt"


def test_model_is_the_same_after_a_round_trip(path, model):
    image = torch.randn(1, 1, 16, 16, 4)

    loaded = load_checkpoint(path)

    torch.testing.assert_close(loaded.network(image), model.network(image), rtol=0, atol=0)
    assert not loaded.network.training
    assert loaded.spec == model.spec
    assert (loaded.version, loaded.score) == (3, 0.75)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_training_state(path) is None


def test_score_may_be_unknown(path, model):
    save_checkpoint(path, replace(model, score=None))

    assert load_checkpoint(path).score is None


def test_training_state_is_the_same_after_a_round_trip(path, model):
    optimizer = torch.optim.AdamW(model.network.parameters(), 0.1)
    model.network(torch.randn(1, 1, 16, 16, 4)).sum().backward()
    optimizer.step()
    state = TrainingState(optimizer.state_dict(), iterations=70, progress=0.25)

    save_checkpoint(path, model, state)

    loaded = load_training_state(path)
    assert (loaded.iterations, loaded.progress) == (70, 0.25)
    torch.testing.assert_close(loaded.optimizer, state.optimizer, rtol=0, atol=0)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")


class Intruder:
    """Unpickling it runs a command."""

    def __init__(self, evidence):
        self.evidence = evidence

    def __reduce__(self):
        return os.system, (f"touch '{self.evidence}'",)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_pickle_with_code_is_refused_and_not_run(tmp_path, write):
    evidence, path = tmp_path / "evidence", tmp_path / "inextremis.pt"
    write({"format_version": FORMAT_VERSION, "model": Intruder(evidence)}, path)

    with pytest.raises(CheckpointError, match="inextremis.pt cannot be used"):
        load_checkpoint(path)

    assert not evidence.exists()
    # The file contains code that would have run.
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert evidence.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_file_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    with pytest.raises(CheckpointError, match=r"^The model inextremis.pt cannot be used \(.+\)\.$"):
        load_checkpoint(path)


def changed(path, **changes):
    content = {**torch.load(path, weights_only=True), **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, path)


@pytest.mark.parametrize("version", [1, 99])
@pytest.mark.parametrize("load", [load_checkpoint, load_training_state])
def test_other_format_version_is_refused_and_named(path, version, load):
    changed(path, format_version=version)

    with pytest.raises(CheckpointError, match=rf"\(format version {version}; expected {FORMAT_VERSION}\)"):
        load(path)


@pytest.mark.parametrize(
    "changes",
    [{"spec": None}, {"model": None}, {"version": None}, {"spec": {"labels": ["lesion"]}}, {"model": {}}],
    ids=["no spec", "no weights", "no version", "part of a spec", "weights of nothing"],
)
def test_file_with_something_missing_is_refused(path, changes):
    changed(path, **changes)

    with pytest.raises(CheckpointError, match="inextremis.pt cannot be used"):
        load_checkpoint(path)


def test_weights_of_another_network_are_refused(path, model):
    other = NetworkSpec.plan(model.spec.labels, (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=4)
    changed(path, model=other.build().state_dict())

    with pytest.raises(CheckpointError, match="inextremis.pt cannot be used"):
        load_checkpoint(path)


def test_failed_save_leaves_the_old_model_and_no_other_file(path, model, monkeypatch):
    before = path.read_bytes()

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, TrainedModel(model.spec, model.network, 4))

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_reader_of_the_old_file_is_not_affected_by_a_new_one(path, model):
    with path.open("rb") as reader:
        first = reader.read(100)
        save_checkpoint(path, TrainedModel(model.spec, model.network, 4))
        old = first + reader.read()

    kept = Path(path.parent, "kept.pt")
    kept.write_bytes(old)
    assert (load_checkpoint(kept).version, load_checkpoint(path).version) == (3, 4)


@pytest.mark.parametrize("roi_size", [(16, 16, 4), (33, 40, 9)])
def test_planned_patch_is_divisible_by_the_strides_of_the_network(roi_size):
    spec = NetworkSpec.plan(("lesion",), (0.9, 0.9, 6.5), roi_size, levels=4, base_channels=2)

    logits = spec.build()(torch.zeros(1, 1, *spec.roi_size))

    assert logits.shape == (1, 2, *spec.roi_size)
    assert all(size >= requested for size, requested in zip(spec.roi_size, roi_size, strict=True))


def test_smallest_patch_is_enlarged_for_its_network():
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (8, 8, 8), levels=5, base_channels=2)

    assert spec.build()(torch.zeros(1, 1, *spec.roi_size)).shape == (1, 2, *spec.roi_size)
