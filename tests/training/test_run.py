"""A training run as a whole: what is published, what is kept, and what an interruption or a fault costs."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.geometry.volume import VolumeError
from lib.networks.checkpoint import load_checkpoint, load_training_state
from lib.training import gate, run
from lib.training.budget import learning_rate
from lib.training.hyperparameters import Hyperparameters
from lib.training.loop import TrainingError
from lib.training.objective import InExtremISObjective
from lib.training.record import TrainingRecord
from lib.training.run import REPORTS, Listener
from tests.training.phantoms import LABELS, BrightIsLabel, clock, scan, scans, training, versions_in

ROOT = Path(__file__).parents[2]


@pytest.fixture
def five(tmp_path):
    """As many scans as it takes to hold one out."""
    return scans(tmp_path, 5)


@pytest.fixture
def scores(monkeypatch):
    """What each network that is judged scores; a version that is kept is not judged again."""

    def script(*values):
        following = iter(values)

        def score(*_):
            value = next(following)
            if isinstance(value, Exception):
                raise value
            return value

        monkeypatch.setattr(gate, "scan_score", score)

    return script


def published(folder):
    return load_checkpoint(versions_in(folder).published_path)


def unfinished_path(folder):
    return folder / "model" / "inextremis" / "unfinished.pt"


def record(folder):
    return TrainingRecord.load(folder / "model" / "inextremis" / "record.json")


class Heard:
    """A listener that takes note, and does something once it has heard so many reports."""

    def __init__(self, after=None, do=None):
        self.began, self.reports, self.verdicts = [], [], []
        self.after, self.do = after, do

    @property
    def listener(self):
        return Listener(lambda *numbers: self.began.append(numbers), self._report, self._judged)

    def _report(self, report):
        self.reports.append(report)
        if self.after == len(self.reports):
            self.do()

    def _judged(self, verdict, iterations):
        self.verdicts.append(verdict)


class Stopped(BaseException):
    """As the signal that ends the process of a training."""


def stop():
    raise Stopped


def interrupted(folder, annotated, after, **changes):
    """A training that is stopped after so many of its 20 parts."""
    changes = {"iterations": REPORTS, **changes}
    with pytest.raises(Stopped):
        training(folder, annotated, listener=Heard(after, stop).listener, **changes).run()


class Watched(BrightIsLabel):
    """Takes note of the batches that it is given."""

    batches = []

    def forward(self, batch, logits):
        self.batches.append(batch.image.clone())
        return super().forward(batch, logits)


@pytest.fixture
def watched():
    return type("Watched", (Watched,), {"batches": []})


# An ordinary run


def test_run_publishes_a_network_and_tells_how_it_went(tmp_path, five):
    heard = Heard()

    told = training(tmp_path, five, iterations=40, listener=heard.listener).run()

    assert published(tmp_path).version == told.version == 1
    assert (told.iterations, told.scans, told.judged_on) == (40, 4, (1, "held-out"))
    assert published(tmp_path).score == told.score == heard.verdicts[0].score
    assert record(tmp_path).runs == (told,)
    assert heard.began == [(4, 1)]
    assert [report.part for report in heard.reports] == list(range(1, REPORTS + 1))
    assert [report.iterations for report in heard.reports] == list(range(2, 41, 2))
    assert not unfinished_path(tmp_path).exists()


@pytest.mark.parametrize("iterations", [1, 7, 33])
def test_viewers_see_the_end_of_every_run(tmp_path, five, iterations):
    heard = Heard()

    training(tmp_path, five, iterations=iterations, listener=heard.listener).run()

    parts = [report.part for report in heard.reports]
    assert parts[-1] == REPORTS
    assert parts == sorted(set(parts))


def test_each_run_goes_on_from_the_published_network(tmp_path, five, scores):
    scores(0.5, 0.6)

    for _ in range(2):
        training(tmp_path, five, iterations=3).run()

    assert (published(tmp_path).version, load_training_state(versions_in(tmp_path).published_path).iterations) == (2, 6)


def test_nothing_to_learn_from_is_said_in_a_sentence(tmp_path):
    with pytest.raises(TrainingError, match="^There is nothing to learn from"):
        training(tmp_path, []).run()


def test_network_that_does_not_exist_is_said_in_a_sentence_and_costs_nothing(tmp_path, five):
    interrupted(tmp_path, five, after=3)

    with pytest.raises(TrainingError, match="^The training cannot start: There is no network 'Unet2'"):
        training(tmp_path, five, network="Unet2").run()
    assert unfinished_path(tmp_path).exists()


def test_each_run_draws_other_patches(tmp_path, five, watched, scores):
    scores(0.5, 0.5, 0.5)
    for _ in range(3):
        training(tmp_path, five, iterations=1, objective=watched).run()

    _, second, third = watched.batches
    assert not torch.equal(second, third), "both went on from a published network"


def test_same_seed_draws_the_same_and_another_does_not(tmp_path, five):
    drawn = []
    for number, seed in enumerate((5, 5, 6)):
        objective = type("Watched", (Watched,), {"batches": []})
        training(tmp_path / str(number), five, seed=seed, objective=objective).run()
        drawn.append(torch.stack(objective.batches))

    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


class Told(BrightIsLabel):
    """Calls something before each step."""

    def __init__(self, labels, spacing_mm, hyperparameters, call):
        super().__init__(labels, spacing_mm, hyperparameters)
        self.call = call

    def forward(self, *arguments):
        self.call()
        return super().forward(*arguments)


def keep_optimizer(following):
    """A list that the optimiser of a training gets into."""
    made, make = [], following._optimizer
    following._optimizer = lambda *arguments: made.append(make(*arguments)) or made[0]
    return made


MOMENTS = {"sgd": {"momentum_buffer"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}}


@pytest.mark.parametrize("first", MOMENTS)
@pytest.mark.parametrize("then", MOMENTS)
def test_moments_go_on_from_run_to_run_where_it_is_the_same_optimiser(tmp_path, five, scores, first, then):
    scores(0.5, 0.5)
    training(tmp_path, five, optimizer=first).run()
    before = load_training_state(versions_in(tmp_path).published_path).optimizer["state"]
    following = training(tmp_path, five, optimizer=then)
    optimizer, moments = keep_optimizer(following), []
    following.objective = lambda *a: Told(*a, lambda: moments.append(len(optimizer[0].state)))

    following.run()

    assert set(before[0]) == MOMENTS[first]
    assert set(load_training_state(versions_in(tmp_path).published_path).optimizer["state"][0]) == MOMENTS[then]
    assert moments[0] == (len(before) if first == then else 0)


# Figures that are no numbers


class Breaks(Watched):
    """From some step on, its gradient is not finite, though its loss is."""

    def __init__(self, *arguments, after):
        super().__init__(*arguments)
        self.left = after

    def forward(self, batch, logits):
        value = super().forward(batch, logits)
        self.left -= 1
        return value if self.left > 0 else replace(value, loss=value.loss + (logits * 0).sqrt().sum())


def breaking(after):
    return lambda *arguments: Breaks(*arguments, after=after)


@pytest.mark.parametrize("after", [1, 13, REPORTS])
def test_network_that_breaks_ends_the_run_with_a_sentence(tmp_path, five, after):
    with pytest.raises(TrainingError, match="became .*; try again with a lower learning_rate"):
        training(tmp_path, five, iterations=REPORTS, objective=breaking(after)).run()

    assert not versions_in(tmp_path).published_path.exists()
    assert not unfinished_path(tmp_path).exists()


def test_geodesics_never_see_what_broke(tmp_path, five):
    """Deep geodesics take probabilities in [0, 1] only."""

    class BreaksInEarnest(InExtremISObjective):
        def forward(self, batch, logits):
            value = super().forward(batch, logits)
            return replace(value, loss=value.loss + (logits * 0).sqrt().sum())

    with pytest.raises(TrainingError, match="^The output of the network became nan"):
        training(tmp_path, five, objective=BreaksInEarnest, iterations=100).run()


def test_what_broke_is_not_gone_on_from_and_not_drawn_again(tmp_path, five, scores):
    scores(0.5, 0.5)
    training(tmp_path, five).run()
    before = versions_in(tmp_path).published_path.read_bytes()
    interrupted(tmp_path, five, after=5)
    Breaks.batches.clear()

    for _ in range(3):
        with pytest.raises(TrainingError):
            training(tmp_path, five, objective=breaking(1), iterations=REPORTS).run()
        assert not unfinished_path(tmp_path).exists()
        assert versions_in(tmp_path).published_path.read_bytes() == before

    _, second, third = Breaks.batches
    assert not torch.equal(second, third), "both went on from the published network"
    assert record(tmp_path).begun == 5
    training(tmp_path, five).run()
    assert load_training_state(versions_in(tmp_path).published_path).iterations == 4


def test_broken_network_is_not_published_on_the_way(tmp_path, five, monkeypatch):
    monkeypatch.setattr(run, "PUBLISH_EVERY_S", 0)
    monkeypatch.setattr(run, "SCORING_SHARE", float("inf"))

    with pytest.raises(TrainingError):
        training(tmp_path, five, iterations=1000, objective=breaking(1)).run()

    assert not versions_in(tmp_path).published_path.exists()


# The size of patches


@pytest.mark.parametrize("roi_size", [(32, 16, 16), (8, 8, 8)])
def test_size_that_is_asked_for_takes_effect_although_a_model_is_published(tmp_path, five, watched, scores, roi_size):
    scores(0.5, 0.5)
    training(tmp_path, five).run()

    training(tmp_path, five, roi_size=roi_size, objective=watched).run()

    assert {tuple(batch.shape[2:]) for batch in watched.batches} == {roi_size}
    assert published(tmp_path).spec.roi_size == roi_size


def test_size_that_is_asked_for_takes_effect_although_a_training_was_interrupted(tmp_path, five, watched):
    interrupted(tmp_path, five, after=3)

    told = training(tmp_path, five, roi_size="32x16x16", objective=watched, iterations=REPORTS).run()

    assert told.iterations == REPORTS
    assert {tuple(batch.shape[2:]) for batch in watched.batches} == {(32, 16, 16)}


# A roll-back during a training


def test_roll_back_during_a_run_stands_and_the_candidate_is_kept(tmp_path, five, scores, caplog):
    scores(0.5, 0.5, 0.9, 0.9)
    for _ in range(2):
        training(tmp_path, five).run()
    versions = versions_in(tmp_path)
    heard = Heard(10, lambda: versions.roll_back(1))

    told = training(tmp_path, five, iterations=REPORTS, listener=heard.listener).run()

    assert (versions.published_number(), versions.numbers()) == (1, [1, 2, 3])
    assert told.version is None
    assert load_checkpoint(versions.path(3)).score == told.score == 0.9
    assert (heard.verdicts[-1].publish, heard.verdicts[-1].rolled_back) == (False, True)
    assert "Another version was published while it was trained, so that it is kept as a version only." in caplog.text
    assert not unfinished_path(tmp_path).exists()

    training(tmp_path, five).run()

    assert load_training_state(versions.published_path).iterations == 2 + 2, "it goes on from version 1"
    assert versions.published_number() == 4


@pytest.fixture
def often(monkeypatch):
    """A network is judged after each iteration."""
    monkeypatch.setattr(run, "PUBLISH_EVERY_S", 0)
    monkeypatch.setattr(run, "SCORING_SHARE", float("inf"))


def test_roll_back_stands_too_where_the_run_had_published_on_the_way(tmp_path, five, scores, often):
    scores(0.5, *[0.6] * 4, *[0.9] * 20)
    training(tmp_path, five, iterations=1).run()
    versions = versions_in(tmp_path)
    heard = Heard(5, lambda: versions.roll_back(1))

    told = training(tmp_path, five, keep=9, iterations=REPORTS, listener=heard.listener).run()

    assert [verdict.publish for verdict in heard.verdicts] == [True] * 4 + [False] * 2
    assert (versions.published_number(), told.version) == (1, 5)
    # What is judged on the way after it is kept once, and what the run came to.
    assert versions.numbers() == [1, 5, 6, 7]


# Scans to judge on


def test_held_out_scan_that_cannot_be_read_publishes_nothing_over_a_model(tmp_path, five, caplog):
    training(tmp_path, five).run()
    (held_out,) = [one for one in five if one.image_id in record(tmp_path).held_out]
    held_out.image_path.write_bytes(b"half a vol")
    shutil.rmtree(tmp_path / "prepared")

    told = training(tmp_path, five).run()

    assert (told.version, told.score) == (None, None)
    assert versions_in(tmp_path).published_number() == 1
    assert f"The scan {held_out.image_id} is left out of the comparison." in caplog.text
    assert "None of the scans to judge it on can be read" in caplog.text


def test_first_network_is_published_although_no_held_out_scan_can_be_read(tmp_path, five, scores):
    scores(VolumeError("It cannot be read."))

    told = training(tmp_path, five).run()

    assert (told.version, told.score, published(tmp_path).score) == (1, None, None)


def test_with_fewer_than_five_scans_a_collapse_is_stopped_and_no_score_is_kept(tmp_path, scores):
    four = scans(tmp_path, 4)
    scores(*[0.8] * 4, *[0.5] * 4, *[0.2] * 4)

    told = [training(tmp_path, four).run() for _ in range(3)]

    assert [(one.version, one.scans, one.judged_on) for one in told] == [
        (1, 4, (4, "training")),
        (2, 4, (4, "training")),
        (None, 4, (4, "training")),
    ]
    assert published(tmp_path).version == 2
    assert published(tmp_path).score is None


def test_where_only_held_out_scans_are_left_they_are_trained_on(tmp_path, scores):
    scores(*[0.5] * 20)
    ten = scans(tmp_path, 10)
    training(tmp_path, ten).run()
    left = [one for one in ten if one.image_id in record(tmp_path).held_out]
    assert len(left) == 2

    told = training(tmp_path, left).run()

    assert (told.version, told.scans, told.judged_on) == (2, 2, (2, "training"))


def test_ten_runs_that_are_each_a_little_worse_do_not_add_up(tmp_path, five, scores):
    scores(*[0.8 - 0.009 * number for number in range(11)])

    for _ in range(11):
        training(tmp_path, five, iterations=1).run()

    assert published(tmp_path).score == pytest.approx(0.791)


def test_the_best_version_is_never_pruned(tmp_path, five, scores):
    scores(0.8, 0.795, 0.794, 0.793, 0.792, 0.789)

    told = [training(tmp_path, five, keep=2, iterations=1).run() for _ in range(6)]

    assert [one.version for one in told] == [1, 2, 3, 4, 5, None]
    assert versions_in(tmp_path).numbers() == [1, 5]
    assert load_checkpoint(versions_in(tmp_path).path(1)).score == 0.8


# Time, and publishing on the way

STEP_S = 10


class Clocked(BrightIsLabel):
    """Each of its steps takes so many seconds."""

    now = None

    def forward(self, *arguments):
        self.now.seconds += STEP_S
        return super().forward(*arguments)


@pytest.fixture
def slow(monkeypatch):
    """Steps and judging that take as long as they say."""

    def make(judging_s):
        now = clock(monkeypatch)
        objective = type("Clocked", (Clocked,), {"now": now})
        rising = count(1)

        def score(*_):
            now.seconds += judging_s
            return 0.5 + 0.001 * next(rising)

        monkeypatch.setattr(gate, "scan_score", score)
        return now, objective

    return make


@pytest.mark.parametrize(("minutes", "judging_s"), [(1, 1), (1, 14), (5, 3), (5, 50)])
@pytest.mark.parametrize("before", [0, 2])
def test_minutes_bound_a_run_with_its_judging(tmp_path, five, slow, minutes, judging_s, before):
    for _ in range(before):
        training(tmp_path, five).run()
    now, objective = slow(judging_s)
    start = now.seconds

    training(tmp_path, five, objective=objective, iterations=100_000, max_minutes=minutes).run()

    took = now.seconds - start
    assert 60 * minutes - STEP_S <= took <= 60 * minutes + STEP_S


def test_network_is_published_on_the_way_and_at_the_end(tmp_path, five, slow):
    _, objective = slow(judging_s=1)
    heard = Heard()

    told = training(
        tmp_path, five, objective=objective, iterations=100_000, max_minutes=10, listener=heard.listener
    ).run()

    assert [verdict.publish for verdict in heard.verdicts] == [True] * 5
    assert told.version == published(tmp_path).version == 5


def test_run_that_publishes_often_pushes_no_version_of_another_run_out(tmp_path, five, scores, often):
    scores(0.5, *[0.6] * 10)
    training(tmp_path, five, iterations=1).run()

    training(tmp_path, five, iterations=8).run()

    assert versions_in(tmp_path).numbers() == [1, 9]


def test_better_version_on_the_way_stays_as_the_one_to_compare_with(tmp_path, five, scores, often):
    """Or a run could lose a little with each of its versions."""
    scores(0.5, 0.6, 0.595, 0.592, 0.585, 0.595)
    training(tmp_path, five, iterations=1).run()
    heard = Heard()

    training(tmp_path, five, iterations=5, listener=heard.listener).run()

    assert [verdict.publish for verdict in heard.verdicts] == [True, True, True, False, True]
    assert versions_in(tmp_path).numbers() == [1, 2, 5]


def test_judging_takes_a_small_part_of_a_run(tmp_path, five, slow):
    _, objective = slow(judging_s=30)
    heard = Heard()

    training(tmp_path, five, objective=objective, iterations=100_000, max_minutes=12, listener=heard.listener).run()

    assert 0 < (len(heard.verdicts) - 1) * 30 <= 0.1 * 12 * 60


def test_network_that_is_worse_on_the_way_is_not_published_and_a_better_one_at_the_end_is(
    tmp_path, five, scores, often
):
    scores(0.5, 0.1, 0.2, 0.6)
    training(tmp_path, five, iterations=1).run()
    heard = Heard()

    told = training(tmp_path, five, iterations=3, listener=heard.listener).run()

    assert [verdict.publish for verdict in heard.verdicts] == [False, False, True]
    assert told.version == published(tmp_path).version == 2


def test_run_that_ends_right_after_it_published_goes_on_with_its_budget(tmp_path, five, scores, often, monkeypatch):
    """What was published is not a training that has ended."""
    scores(*[0.5] * 100)
    interrupted(tmp_path, five, after=1, iterations=2 * REPORTS)

    state = load_training_state(unfinished_path(tmp_path))
    assert published(tmp_path).version == load_checkpoint(unfinished_path(tmp_path)).version == 1
    assert (state.iterations, state.progress) == (1, pytest.approx(1 / 40))
    monkeypatch.setattr(run, "PUBLISH_EVERY_S", 1e6)
    assert training(tmp_path, five, iterations=2 * REPORTS).run().iterations == 40


# Going on


def losses(folder, annotated, **changes):
    heard = Heard()
    changes = {"iterations": REPORTS, "augmentation": "none", **changes}
    training(folder, annotated, objective=InExtremISObjective, listener=heard.listener, **changes).run()
    return np.array([report.step.value.loss.item() for report in heard.reports])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [({}, {}), ({"optimizer": "sgd", "learning_rate": 0.03, "momentum": 0.9}, {"learning_rate": 0.03})],
    ids=["with its moments", "without any"],
)
def test_run_that_goes_on_does_not_unlearn_first(tmp_path, five, first, then):
    """Compared with the published network itself, which a rate of nearly 0 leaves as it is, on the same patches."""
    losses(tmp_path, five, iterations=100, **first)
    shutil.copytree(tmp_path / "model", tmp_path / "still" / "model")

    still, goes_on = losses(tmp_path / "still", five, learning_rate=1e-12), losses(tmp_path, five, **then)

    assert goes_on[0] == pytest.approx(still[0], rel=1e-4)
    assert np.all(goes_on <= 1.25 * still)
    assert goes_on.mean() < still.mean()


KILLED = """
import os, signal, sys
from pathlib import Path
from lib.training.run import Listener
from tests.training.phantoms import scans, training
def die(report):
    if report.part == 8:
        os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[1])
training(folder, scans(folder, 5), iterations=20, listener=Listener(reported=die)).run()
"""


@pytest.mark.slow
def test_run_that_is_killed_leaves_what_is_published_and_goes_on(tmp_path, five, scores):
    scores(0.5, 0.5)
    training(tmp_path, five).run()
    versions = versions_in(tmp_path)
    before = versions.published_path.read_bytes()

    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, capture_output=True, text=True)

    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert versions.published_path.read_bytes() == before
    assert load_training_state(unfinished_path(tmp_path)).progress == pytest.approx(7 / 20)

    rates = []
    following = training(tmp_path, five, iterations=20)
    optimizer = keep_optimizer(following)
    following.objective = lambda *a: Told(*a, lambda: rates.append(optimizer[0].param_groups[0]["lr"]))
    told = following.run()

    assert told.iterations == 2 + 20, "none is done twice but the last part, and none is left out"
    h = Hyperparameters.of_preset("cpu")
    assert rates == pytest.approx([learning_rate(h, n, (7 + n) / 20) for n in range(13)])
    assert versions.published_number() == 2
    assert record(tmp_path).begun == 3


def test_disk_that_is_full_leaves_the_old_model_and_the_run_goes_on_later(tmp_path, five, scores, monkeypatch):
    scores(*[0.5] * 4)
    training(tmp_path, five).run()
    save = run.ModelVersions.publish

    def no_space(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run.ModelVersions, "publish", no_space)
    with pytest.raises(OSError, match="No space"):
        training(tmp_path, five, iterations=REPORTS).run()
    assert versions_in(tmp_path).published_number() == 1

    monkeypatch.setattr(run.ModelVersions, "publish", save)
    assert training(tmp_path, five, iterations=REPORTS).run().iterations == 2 + REPORTS


# What annotators say


def test_all_that_annotators_say_is_learnt_from(tmp_path):
    said = [
        {"clicked": LABELS},
        {"clicked": ("lesion",)},
        {"clicked": ("lesion",), "absent": ("cyst",)},
        {"clicked": (), "absent": LABELS},
        {"clicked": (), "masked": LABELS},
        {"clicked": (), "masked": ("cyst",)},
        {"clicked": LABELS, "masked": ("lesion",)},
        {"clicked": (), "absent": ("lesion",), "masked": ("cyst",)},
    ]
    annotated = [scan(tmp_path, f"scan {number}", **kinds) for number, kinds in enumerate(said)]

    for share in (0.0, 0.5):
        told = training(
            tmp_path,
            annotated,
            LABELS,
            objective=InExtremISObjective,
            iterations=8,
            held_out_share=share,
            click_mask_weight=1,
            train_batch_size=2,
        ).run()

        assert np.isfinite(told.loss)
    assert published(tmp_path).spec.labels == LABELS


@pytest.mark.parametrize("said", [{"clicked": (), "absent": ("lesion",)}, {"clicked": (), "masked": ("lesion",)}])
def test_scans_without_any_clicks_are_enough(tmp_path, said):
    assert training(tmp_path, scans(tmp_path, 5, **said), objective=InExtremISObjective).run().version == 1


@pytest.mark.parametrize("before", [("lesion", "cyst"), ("cyst", "lesion"), ("cyst",)])
@pytest.mark.parametrize("scan_count", [5, 4])
def test_network_of_the_labels_that_the_app_has_now_replaces_one_of_others(tmp_path, scores, before, scan_count):
    annotated = scans(tmp_path, scan_count, clicked=("lesion",))
    scores(*[0.9] * scan_count, *[0.1] * scan_count)
    training(tmp_path, [scan(tmp_path, one.image_id, clicked=before) for one in annotated], before).run()

    told = training(tmp_path, annotated, ("lesion",)).run()

    assert (told.version, told.iterations) == (2, 2)
    assert published(tmp_path).spec.labels == ("lesion",)
