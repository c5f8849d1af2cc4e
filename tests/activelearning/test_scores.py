"""Scores that are kept: over restarts, and over versions of the model."""

import json
import logging

import pytest

from lib.activelearning.scores import UncertaintyScores


@pytest.fixture
def path(tmp_path):
    return tmp_path / "versions" / "uncertainty.json"


def scored(path, **versions):
    scores = UncertaintyScores(path)
    for version, scans in versions.items():
        scores.begin(int(version[1:]))
        for image_id, score in scans.items():
            scores.add(int(version[1:]), image_id, {"lesion": score})
    return scores


def test_scores_and_their_version_survive_a_restart(path):
    scored(path, v3={"a": 0.25, "b": 0.5})

    again = UncertaintyScores(path)

    assert again.of(["a", "b", "c"], "lesion") == {"a": 0.25, "b": 0.5}
    assert again.scored(3) == {"a", "b"}
    assert again.scored(4) == set()
    assert json.loads(path.read_text())["versions"][0]["version"] == 3


def test_scores_before_are_used_until_the_new_ones_cover_as_many(path):
    scores = scored(path, v1={"a": 0.1, "b": 0.2}, v2={"a": 0.8})
    assert scores.of(["a", "b"], "lesion") == {"a": 0.1, "b": 0.2}
    assert scores.of(["a"], "lesion") == {"a": 0.8}

    scores.add(2, "b", {"lesion": 0.9})

    assert scores.of(["a", "b"], "lesion") == {"a": 0.8, "b": 0.9}


def test_only_the_fullest_set_before_the_newest_is_kept(path):
    scores = scored(path, v1={"a": 0.1, "b": 0.2}, v2={"a": 0.8}, v3={})

    assert [scores.scored(version) for version in (1, 2, 3)] == [{"a", "b"}, set(), set()]
    assert scores.of(["a", "b"], "lesion") == {"a": 0.1, "b": 0.2}


def test_version_that_is_published_again_keeps_its_scores_and_is_the_newest(path):
    scores = scored(path, v1={"a": 0.1}, v2={"a": 0.8})

    scores.begin(1)

    assert scores.of(["a"], "lesion") == {"a": 0.1}


def test_label_that_the_model_does_not_know_has_no_scores(path):
    assert scored(path, v1={"a": 0.1}).of(["a"], "cyst") == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"format_version": 9}', '{"format_version": 1, "versions": [3]}'])
def test_file_that_cannot_be_read_is_named_and_made_anew(path, content, caplog):
    path.parent.mkdir()
    path.write_text(content)

    with caplog.at_level(logging.ERROR):
        scores = UncertaintyScores(path)
    assert path.name in caplog.text
    assert scores.of(["a"], "lesion") == {}

    scores.add(1, "a", {"lesion": 0.5})
    assert UncertaintyScores(path).of(["a"], "lesion") == {"a": 0.5}


def test_scores_stay_usable_where_they_cannot_be_written(path, caplog):
    path.mkdir(parents=True)

    scores = scored(path, v1={"a": 0.5})

    assert scores.of(["a"], "lesion") == {"a": 0.5}
    assert "a are not kept on disk" in caplog.text
