"""A training starts automatically after a number of new annotations."""

from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest
from fastapi import HTTPException

from lib.trainers.auto_train import AutoTrain


def starts(every, names, unseen=()):
    """Annotate under these names, and count the starts; "-" is the start of a training by a user."""
    start = Mock()
    auto_train = AutoTrain(every, start, unseen)
    for name in names:
        if name == "-":
            auto_train.began()
        else:
            auto_train.annotated(name)
    return start.call_count


@pytest.mark.parametrize(
    ("every", "names", "unseen", "expected"),
    [
        (3, "ab", "", 0),
        (3, "abcde", "", 1),
        (3, "abcdef", "", 2),
        (2, "aaa", "", 0),
        (2, "a-b", "", 0),
        (3, "c", "ab", 1),
        (0, "de", "abc", 0),
    ],
    ids=["too few", "once", "twice", "changed", "training in between", "before a restart", "off"],
)
def test_training_starts_after_a_number_of_new_annotations(every, names, unseen, expected):
    assert starts(every, names, unseen) == expected


def test_refused_training_is_logged(caplog):
    AutoTrain(1, Mock(side_effect=HTTPException(409, "There is nothing to learn from."))).annotated("a")

    assert "The training did not start. There is nothing to learn from." in caplog.text


def test_parallel_annotations_are_all_counted():
    start = Mock()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(AutoTrain(10, start).annotated, map(str, range(100))))

    assert start.call_count == 10
