"""A training starts by itself after so many new annotations, and not once for each."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import HTTPException

from lib.trainers.auto_train import AutoTrain


class Starts:
    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


@pytest.fixture
def starts():
    return Starts()


def annotate(auto_train, *names):
    for name in names:
        auto_train.annotated(name)


def test_every_third_annotation_starts_one(starts):
    auto_train = AutoTrain(3, starts)

    annotate(auto_train, "a", "b")
    assert starts.count == 0
    annotate(auto_train, "c", "d", "e")
    assert starts.count == 1
    annotate(auto_train, "f")
    assert starts.count == 2


def test_changed_annotation_counts_once(starts):
    auto_train = AutoTrain(2, starts)

    annotate(auto_train, "a", "a", "a")

    assert starts.count == 0


def test_training_that_someone_asked_for_has_seen_all(starts):
    auto_train = AutoTrain(2, starts)

    annotate(auto_train, "a")
    auto_train.began()
    annotate(auto_train, "b")

    assert starts.count == 0


def test_annotations_before_a_restart_count(starts):
    annotate(AutoTrain(3, starts, unseen=["a", "b"]), "c")

    assert starts.count == 1


def test_none_starts_by_default(starts):
    annotate(AutoTrain(0, starts, unseen="abc"), "d", "e")

    assert starts.count == 0


def test_refused_training_is_no_concern_of_the_annotator(caplog):
    def refuse():
        raise HTTPException(409, "There is nothing to learn from.")

    annotate(AutoTrain(1, refuse), "a")

    assert "The training did not start. There is nothing to learn from." in caplog.text


def test_many_annotators_start_as_many_as_one(starts):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(AutoTrain(10, starts).annotated, map(str, range(100))))

    assert starts.count == 10
