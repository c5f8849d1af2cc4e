"""Versions of the published network: published atomically, kept, and rolled back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib.networks.checkpoint import CheckpointError, TrainingState, load_checkpoint
from lib.networks.checkpoint import load_training_state as training_state
from lib.networks.versions import ModelVersions
from tests.full_disk import no_space
from tests.training.phantoms import untrained as model

ROOT = Path(__file__).parents[2]


def publish(versions, count=1, spared=()):
    """Publish models, each trained from the published one."""
    for _ in range(count):
        seed = versions.next_number()
        number, is_published = versions.publish(
            model(seed), TrainingState({}, 10 * seed), base=versions.published_number(), spared=spared
        )
        assert (number, is_published) == (seed, True)


@pytest.fixture
def versions(tmp_path):
    return ModelVersions(tmp_path / "model" / "inextremis.pt", keep=3)


def test_before_the_first_version(versions):
    assert versions.numbers() == []
    assert versions.next_number() == 1
    assert versions.published_number() == 0


def test_published_version_is_kept_under_its_number(versions):
    publish(versions, 2)

    assert versions.published_path.read_bytes() == versions.path(2).read_bytes()
    assert [load_checkpoint(versions.path(number)).version for number in versions.numbers()] == [1, 2]


def test_the_last_versions_and_other_files_are_kept(versions):
    publish(versions)
    other = versions.folder / "uncertainty.json"
    other.write_text("{}")

    publish(versions, 4)

    assert versions.numbers() == [3, 4, 5]
    assert load_checkpoint(versions.published_path).version == 5
    assert other.read_text() == "{}"


def test_spared_version_is_kept(versions):
    publish(versions, 6, spared=(2,))

    assert versions.numbers() == [2, 5, 6]


@pytest.mark.parametrize(("spared", "left"), [((), [1, 3]), ((2,), [1, 2, 3])])
def test_replaced_version_is_deleted_unless_it_is_spared(versions, spared, left):
    publish(versions, 2)

    versions.publish(model(3), TrainingState({}, 30), base=2, spared=spared, replaced=2)

    assert versions.numbers() == left


def test_unpublished_version_replaces_none(versions):
    publish(versions, 2)

    versions.publish(model(3), TrainingState({}, 30), base=1, replaced=2)

    assert versions.numbers() == [1, 2, 3]


@pytest.mark.parametrize("spared", [(), (1,)])
def test_with_keep_1_only_the_published_version_is_kept(tmp_path, spared):
    versions = ModelVersions(tmp_path / "inextremis.pt", keep=1)
    publish(versions, 3, spared)

    assert versions.numbers() == [*spared, 3]


def test_roll_back_publishes_network_and_training_state(versions):
    publish(versions, 3)

    versions.roll_back(2)

    image = torch.randn(1, 1, 16, 16, 16)
    published = load_checkpoint(versions.published_path)
    torch.testing.assert_close(published.network(image), model(2).network.eval()(image), rtol=0, atol=0)
    assert published.version == 2
    assert training_state(versions.published_path).iterations == 20


def test_numbers_are_not_reused_after_a_roll_back(versions):
    publish(versions, 3)
    versions.roll_back(1)

    assert versions.next_number() == 4


def test_predecessors_of_the_published_version(versions):
    publish(versions, 3)

    assert versions.led_to_published() == [1, 2, 3]
    assert load_checkpoint(versions.published_path).predecessors == (1, 2)


def test_versions_that_were_rolled_back_are_no_predecessors(versions):
    publish(versions, 3)
    versions.roll_back(2)
    versions.publish(model(4), TrainingState({}, 40), base=2)

    assert versions.led_to_published() == [2, 4]
    versions.roll_back(3)
    assert versions.led_to_published() == [2, 3]


def test_predecessors_before_a_deleted_version_are_found(versions):
    publish(versions, 2)
    versions.publish(model(3), TrainingState({}, 30), base=2, replaced=2)

    assert versions.led_to_published() == [1, 3]


def test_model_with_another_base_than_the_published_version_is_not_published(versions):
    publish(versions, 3)
    versions.roll_back(2)

    number, is_published = versions.publish(model(4), TrainingState({}, 40), base=3)

    assert (number, is_published) == (4, False)
    assert versions.published_number() == 2
    assert load_checkpoint(versions.path(4)).version == 4


def test_published_version_is_not_pruned(versions):
    publish(versions, 3)
    versions.roll_back(1)

    for _ in range(3):
        versions.publish(model(9), TrainingState({}, 40), base=3)

    assert versions.numbers() == [1, 5, 6]


@pytest.mark.parametrize("then", [publish, lambda versions: versions.roll_back(1)])
def test_model_that_was_copied_to_the_published_path_can_be_rolled_back_to(versions, then):
    publish(versions, 2)
    versions.path(2).unlink()

    then(versions)

    assert 2 in versions.numbers()
    versions.roll_back(2)
    assert versions.published_number() == 2


def test_failed_roll_back_leaves_the_published_version(versions):
    publish(versions, 2)
    before = versions.published_path.read_bytes()
    versions.path(1).write_bytes(b"half a mod")

    with pytest.raises(FileNotFoundError):
        versions.roll_back(7)
    with pytest.raises(CheckpointError, match=r"0001\.pt cannot be used"):
        versions.roll_back(1)
    assert versions.published_path.read_bytes() == before


def test_a_broken_model_is_replaced(versions):
    publish(versions, 1)
    versions.published_path.write_bytes(b"half a mod")

    publish(versions, 1)

    assert (versions.published_number(), versions.numbers()) == (2, [1, 2])


def test_a_full_disk_leaves_the_old_model_published(versions, monkeypatch):
    publish(versions, 1)

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        publish(versions, 1)

    assert load_checkpoint(versions.published_path).version == 1


PUBLISHING = """
import sys
from pathlib import Path
from lib.networks.checkpoint import TrainingState
from lib.networks.versions import ModelVersions
from tests.training.phantoms import untrained

versions, name = ModelVersions(Path(sys.argv[1]), keep=100), int(sys.argv[2])
network = untrained(name)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(6):
    base = versions.published_number()
    number, is_published = versions.publish(network, TrainingState({}, 1000 * name + turn), base=base)
    print(number, int(is_published), 1000 * name + turn)
    versions.roll_back(base or number)
"""


@pytest.mark.slow
def test_two_processes_can_publish_and_roll_back_at_once(versions):
    arguments = [sys.executable, "-c", PUBLISHING, versions.published_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*arguments, name], cwd=ROOT, **pipes) for name in ("1", "2")]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate() for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    printed = [tuple(map(int, line.split())) for out, _ in outputs for line in out.splitlines()]
    assert sorted(number for number, _, _ in printed) == versions.numbers() == list(range(1, 13))
    for number, _, iterations in printed:
        kept = load_checkpoint(versions.path(number))
        assert (kept.version, training_state(versions.path(number)).iterations) == (number, iterations)
    assert versions.published_path.read_bytes() == versions.path(versions.published_number()).read_bytes()
