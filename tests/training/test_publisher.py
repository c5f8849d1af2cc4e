"""Versions that a run publishes, and the time that scoring takes."""

import shutil
from itertools import count

import pytest

from lib.networks.checkpoint import load_checkpoint, load_training_state
from lib.training import gate, publisher
from lib.training.run import REPORTS
from tests.training.phantoms import (
    BrightIsLabel,
    Recorder,
    clock,
    interrupted,
    published,
    record,
    scans,
    training,
    unfinished_path,
    versions_in,
)

# A roll-back during a training


def test_roll_back_during_a_run_stays_and_the_candidate_is_stored(tmp_path, five, scores, caplog):
    scores(0.5, 0.5, 0.9, 0.9)
    for _ in range(2):
        training(tmp_path, five).run()
    versions = versions_in(tmp_path)
    recorder = Recorder(10, lambda: versions.roll_back(1))

    ended = training(tmp_path, five, iterations=REPORTS, listener=recorder.listener).run()

    assert (versions.published_number(), versions.numbers()) == (1, [1, 2, 3])
    assert ended.version is None
    assert load_checkpoint(versions.path(3)).score == ended.score == 0.9
    assert (recorder.verdicts[-1].publish, recorder.verdicts[-1].rolled_back) == (False, True)
    assert "Another version was published while it was trained, so that it is kept as a version only." in caplog.text
    assert not unfinished_path(tmp_path).exists()

    training(tmp_path, five).run()

    assert load_training_state(versions.published_path).iterations == 2 + 2, "it starts from version 1"
    assert versions.published_number() == 4


@pytest.fixture
def often(monkeypatch):
    """Score a network after each iteration."""
    monkeypatch.setattr(publisher, "PUBLISH_EVERY_S", 0)
    monkeypatch.setattr(publisher, "SCORING_SHARE", float("inf"))


def test_roll_back_stays_if_the_run_had_published_before(tmp_path, five, scores, often):
    scores(0.5, *[0.6] * 4, *[0.9] * 20)
    training(tmp_path, five, iterations=1).run()
    versions = versions_in(tmp_path)
    recorder = Recorder(5, lambda: versions.roll_back(1))

    ended = training(tmp_path, five, keep=9, iterations=REPORTS, listener=recorder.listener).run()

    assert [verdict.publish for verdict in recorder.verdicts] == [True] * 4 + [False] * 2
    assert (versions.published_number(), ended.version) == (1, 5)
    # After the roll-back, one intermediate candidate and the last one are stored.
    assert versions.numbers() == [1, 5, 6, 7]


# Scans to score


def test_published_model_stays_if_no_held_out_scan_can_be_read(tmp_path, five, caplog):
    training(tmp_path, five).run()
    (held_out,) = [one for one in five if one.image_id in record(tmp_path).held_out]
    held_out.image_path.write_bytes(b"half a vol")
    shutil.rmtree(tmp_path / "prepared")

    ended = training(tmp_path, five).run()

    assert (ended.version, ended.score) == (None, None)
    assert versions_in(tmp_path).published_number() == 1
    assert f"The scan {held_out.image_id} is left out of the comparison." in caplog.text
    assert "None of the scans to judge it on can be read" in caplog.text


def test_with_fewer_than_five_scans_a_collapse_is_not_published_and_no_score_is_stored(tmp_path, scores):
    four = scans(tmp_path, 4)
    scores(*[0.8] * 4, *[0.5] * 4, *[0.2] * 4)

    ended = [training(tmp_path, four).run() for _ in range(3)]

    assert [one.version for one in ended] == [1, 2, None]
    assert {(one.scans, one.judged_on) for one in ended} == {(4, (4, "training"))}
    assert (published(tmp_path).version, published(tmp_path).score) == (2, None)


def test_small_losses_of_many_runs_do_not_add_up(tmp_path, five, scores):
    scores(*[0.8 - 0.009 * number for number in range(11)])

    for _ in range(11):
        training(tmp_path, five, iterations=1).run()

    assert published(tmp_path).score == pytest.approx(0.791)


def test_the_best_version_is_never_pruned(tmp_path, five, scores):
    scores(0.8, 0.795, 0.794, 0.793, 0.792, 0.789)

    ended = [training(tmp_path, five, keep=2, iterations=1).run() for _ in range(6)]

    assert [one.version for one in ended] == [1, 2, 3, 4, 5, None]
    assert versions_in(tmp_path).numbers() == [1, 5]
    assert load_checkpoint(versions_in(tmp_path).path(1)).score == 0.8


# Time, and versions during a run

STEP_S = 10


@pytest.fixture
def slow(monkeypatch):
    """Make a clock, and an objective with steps of `STEP_S`; scoring takes a given time."""

    def make(scoring_s):
        now, rising = clock(monkeypatch), count(1)

        class Clocked(BrightIsLabel):
            def forward(self, *arguments):
                now.seconds += STEP_S
                return super().forward(*arguments)

        def score(*_):
            now.seconds += scoring_s
            return 0.5 + 0.001 * next(rising)

        monkeypatch.setattr(gate, "scan_score", score)
        return now, Clocked

    return make


@pytest.mark.parametrize(("minutes", "scoring_s"), [(1, 1), (1, 14), (5, 3), (5, 50)])
@pytest.mark.parametrize("before", [0, 2])
def test_minutes_limit_a_run_including_scoring(tmp_path, five, slow, minutes, scoring_s, before):
    for _ in range(before):
        training(tmp_path, five).run()
    now, objective = slow(scoring_s)
    start = now.seconds

    training(tmp_path, five, objective=objective, iterations=100_000, max_minutes=minutes).run()

    took = now.seconds - start
    assert 60 * minutes - STEP_S <= took <= 60 * minutes + STEP_S


def timed(folder, annotated, objective, minutes):
    recorder = Recorder()
    changes = {"objective": objective, "iterations": 100_000, "max_minutes": minutes}
    ended = training(folder, annotated, listener=recorder.listener, **changes).run()
    return ended, recorder.verdicts


def test_network_is_published_during_a_run_and_at_its_end(tmp_path, five, slow):
    ended, verdicts = timed(tmp_path, five, slow(scoring_s=1)[1], minutes=10)

    assert [verdict.publish for verdict in verdicts] == [True] * 5
    assert ended.version == published(tmp_path).version == 5


def test_scoring_takes_a_small_part_of_a_run(tmp_path, five, slow):
    _, verdicts = timed(tmp_path, five, slow(scoring_s=30)[1], minutes=12)

    assert 0 < (len(verdicts) - 1) * 30 <= 0.1 * 12 * 60


def test_versions_of_one_run_do_not_displace_those_of_another(tmp_path, five, scores, often):
    scores(0.5, *[0.6] * 10)
    training(tmp_path, five, iterations=1).run()

    training(tmp_path, five, iterations=8).run()

    assert versions_in(tmp_path).numbers() == [1, 9]


@pytest.mark.parametrize(
    ("during", "publish", "kept"),
    [
        # The best version of the run stays, so that small losses of its versions do not add up.
        ([0.6, 0.595, 0.592, 0.585, 0.595], [True, True, True, False, True], [1, 2, 5]),
        ([0.1, 0.2, 0.6], [False, False, True], [1, 2]),
    ],
    ids=["best version stays", "worse ones are not published"],
)
def test_versions_during_a_run_are_compared_with_the_best(tmp_path, five, scores, often, during, publish, kept):
    scores(0.5, *during)
    training(tmp_path, five, iterations=1).run()
    recorder = Recorder()

    ended = training(tmp_path, five, iterations=len(during), listener=recorder.listener).run()

    assert [verdict.publish for verdict in recorder.verdicts] == publish
    assert versions_in(tmp_path).numbers() == kept
    assert ended.version == published(tmp_path).version == kept[-1]


def test_run_that_is_interrupted_after_a_publication_continues_its_budget(tmp_path, five, scores, often, monkeypatch):
    scores(*[0.5] * 100)
    interrupted(tmp_path, five, after=1, iterations=2 * REPORTS)

    state = load_training_state(unfinished_path(tmp_path))
    assert published(tmp_path).version == load_checkpoint(unfinished_path(tmp_path)).version == 1
    assert (state.iterations, state.progress) == (1, pytest.approx(1 / 40))
    monkeypatch.setattr(publisher, "PUBLISH_EVERY_S", 1e6)
    assert training(tmp_path, five, iterations=2 * REPORTS).run().iterations == 40
