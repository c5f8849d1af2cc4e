"""The newest published model is loaded without a restart; unusable files are logged."""

import os
import threading

import pytest
import torch

from lib.infers.published_model import PublishedModel
from lib.networks.checkpoint import FORMAT_VERSION, NetworkSpec, TrainedModel, save_checkpoint
from tests.networks.test_checkpoint import Intruder

LABELS = ("lesion", "cyst")


def publish(path, version=1, labels=LABELS):
    spec = NetworkSpec.plan(labels, (1.0, 1.0, 1.0), (8, 8, 8), levels=2, base_channels=2)
    save_checkpoint(path, TrainedModel(spec, spec.build(), version))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model" / "inextremis.pt"


@pytest.fixture
def published(path):
    return PublishedModel(path, LABELS)


def test_publications_are_used_from_the_next_request_on(published, path, caplog):
    assert published.current() is None
    publish(path, version=1)
    first = published.current()
    assert published.current() is first, "an unchanged file is not read again"
    publish(path, version=2)

    assert (first.version, published.current().version) == (1, 2)
    path.unlink()
    assert published.current() is None
    assert caplog.text == ""


def test_publication_with_the_same_time_is_detected(published, path):
    # Times of a file system may have steps of several milliseconds.
    publish(path, version=1)
    published.current()
    moment = path.stat().st_mtime_ns
    publish(path, version=2)
    os.utime(path, ns=(moment, moment))

    assert published.current().version == 2


def break_in_half(path):
    publish(path)
    path.write_bytes(path.read_bytes()[:1000])


UNUSABLE = {
    "half": (break_in_half, "The model inextremis.pt cannot be used"),
    "empty": (lambda path: path.write_bytes(b""), "The model inextremis.pt cannot be used"),
    "no model": (lambda path: torch.save([1, 2], path), "The model inextremis.pt cannot be used"),
    "other labels": (
        lambda path: publish(path, labels=("tumour",)),
        "The model inextremis.pt was trained for the labels tumour, and the app has lesion, cyst",
    ),
    "other order": (
        lambda path: publish(path, labels=LABELS[::-1]),
        "The model inextremis.pt was trained for the labels cyst, lesion, and the app has lesion, cyst",
    ),
}


@pytest.mark.parametrize(("write", "sentence"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_model_is_logged_once_until_the_next_publication(published, path, caplog, write, sentence):
    path.parent.mkdir()
    write(path)

    assert [published.current() for _ in range(3)] == [None] * 3
    assert caplog.text.count(sentence) == 1
    assert "equests are answered without it" in caplog.text
    publish(path, version=5)
    assert published.current().version == 5


def test_code_in_a_published_file_is_not_run(published, path, tmp_path, caplog):
    path.parent.mkdir()
    torch.save({"format_version": FORMAT_VERSION, "model": Intruder(tmp_path / "evidence")}, path)

    assert published.current() is None
    assert not (tmp_path / "evidence").exists()
    assert "The model inextremis.pt cannot be used" in caplog.text


def test_parallel_requests_get_complete_models_in_order(published, path):
    publish(path, version=1)
    done = threading.Event()
    seen = [[] for _ in range(4)]

    def ask(versions):
        while not done.is_set():
            versions.append(published.current().version)

    threads = [threading.Thread(target=ask, args=(versions,)) for versions in seen]
    for thread in threads:
        thread.start()
    for version in range(2, 12):
        publish(path, version=version)
    done.set()
    for thread in threads:
        thread.join()

    assert published.current().version == 11
    assert all(versions and versions == sorted(versions) for versions in seen)
