"""A training run as a whole: what is published and stored, and the effect of interruptions and errors."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.networks.checkpoint import load_training_state
from lib.networks.versions import ModelVersions
from lib.training import publisher
from lib.training.budget import learning_rate
from lib.training.hyperparameters import Hyperparameters
from lib.training.loop import TrainingError
from lib.training.objective import InExtremISObjective
from lib.training.run import REPORTS
from tests.full_disk import no_space
from tests.training.phantoms import (
    LABELS,
    BrightIsLabel,
    Recorder,
    interrupted,
    published,
    record,
    scan,
    scans,
    training,
    unfinished_path,
    versions_in,
)

ROOT = Path(__file__).parents[2]


class Watched(BrightIsLabel):
    """Records its batches, and calls a function before each step."""

    def __init__(self, *arguments, batches, call=lambda: None):
        super().__init__(*arguments)
        self.batches, self.call = batches, call

    def forward(self, batch, logits):
        self.call()
        self.batches.append(batch.image.clone())
        return super().forward(batch, logits)


def watched(batches):
    return partial(Watched, batches=batches)


# An ordinary run


def test_run_publishes_a_network_and_returns_its_record(tmp_path, five):
    recorder = Recorder()

    ended = training(tmp_path, five, iterations=40, listener=recorder.listener).run()

    assert published(tmp_path).version == ended.version == 1
    assert (ended.iterations, ended.scans, ended.judged_on) == (40, 4, (1, "held-out"))
    assert published(tmp_path).score == ended.score == recorder.verdicts[0].score
    assert record(tmp_path).runs == (ended,)
    assert recorder.began == [(4, 1)]
    assert [report.part for report in recorder.reports] == list(range(1, REPORTS + 1))
    assert [report.iterations for report in recorder.reports] == list(range(2, 41, 2))
    assert not unfinished_path(tmp_path).exists()


@pytest.mark.parametrize("iterations", [1, 7, 33])
def test_last_report_is_that_of_the_last_part(tmp_path, five, iterations):
    recorder = Recorder()

    training(tmp_path, five, iterations=iterations, listener=recorder.listener).run()

    parts = [report.part for report in recorder.reports]
    assert parts[-1] == REPORTS
    assert parts == sorted(set(parts))


def test_training_without_annotations_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="^There is nothing to learn from"):
        training(tmp_path, []).run()


def test_unknown_network_is_refused_and_keeps_the_state(tmp_path, five):
    interrupted(tmp_path, five, after=3)

    with pytest.raises(TrainingError, match="^The training cannot start: There is no network 'Unet2'"):
        training(tmp_path, five, network="Unet2").run()
    assert unfinished_path(tmp_path).exists()


def test_each_run_draws_other_patches(tmp_path, five, scores):
    scores(0.5, 0.5, 0.5)
    batches = []
    for _ in range(3):
        training(tmp_path, five, iterations=1, objective=watched(batches)).run()

    _, second, third = batches
    assert not torch.equal(second, third), "both started from a published network"


def test_patches_depend_on_the_seed(tmp_path, five):
    drawn = []
    for number, seed in enumerate((5, 5, 6)):
        training(tmp_path / str(number), five, seed=seed, objective=watched(batches := [])).run()
        drawn.append(torch.stack(batches))

    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def at_each_step(following, of_optimizer):
    """Collect a value of the optimiser of a training before each step."""
    optimizers, values, make = [], [], following._optimizer
    following._optimizer = lambda *arguments: optimizers.append(make(*arguments)) or optimizers[0]
    call = lambda: values.append(of_optimizer(optimizers[0]))  # noqa: E731
    following.objective = partial(Watched, batches=[], call=call)
    return values


MOMENTS = {"sgd": {"momentum_buffer"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}}


@pytest.mark.parametrize("first", MOMENTS)
@pytest.mark.parametrize("then", MOMENTS)
def test_same_optimiser_continues_with_its_moments(tmp_path, five, scores, first, then):
    scores(0.5, 0.5)
    training(tmp_path, five, optimizer=first).run()
    before = load_training_state(versions_in(tmp_path).published_path).optimizer["state"]
    following = training(tmp_path, five, optimizer=then)
    moments = at_each_step(following, lambda optimizer: len(optimizer.state))

    following.run()

    assert set(before[0]) == MOMENTS[first]
    assert set(load_training_state(versions_in(tmp_path).published_path).optimizer["state"][0]) == MOMENTS[then]
    assert moments[0] == (len(before) if first == then else 0)


# Values that are not finite


def with_nan_gradient(value, logits):
    return replace(value, loss=value.loss + (logits * 0).sqrt().sum())


class Breaks(Watched):
    """Has a gradient that is not finite from some step on; its loss is finite."""

    def __init__(self, *arguments, after, batches):
        super().__init__(*arguments, batches=batches)
        self.left = after

    def forward(self, batch, logits):
        value = super().forward(batch, logits)
        self.left -= 1
        return value if self.left > 0 else with_nan_gradient(value, logits)


def breaking(after, batches=None):
    return partial(Breaks, after=after, batches=[] if batches is None else batches)


@pytest.mark.parametrize(
    ("after", "iterations", "every_s"),
    [(1, REPORTS, 120), (13, REPORTS, 120), (REPORTS, REPORTS, 120), (1, 1000, 0)],
    ids=["first step", "later", "last step", "at a publication before the first report"],
)
def test_diverged_run_ends_and_publishes_nothing(tmp_path, five, monkeypatch, after, iterations, every_s):
    monkeypatch.setattr(publisher, "PUBLISH_EVERY_S", every_s)

    with pytest.raises(TrainingError, match="became .*; try again with a lower learning_rate"):
        training(tmp_path, five, iterations=iterations, objective=breaking(after)).run()

    assert not versions_in(tmp_path).published_path.exists()
    assert not unfinished_path(tmp_path).exists()


def test_geodesics_get_finite_probabilities_only(tmp_path, five):
    class BreakingObjective(InExtremISObjective):
        def forward(self, batch, logits):
            return with_nan_gradient(super().forward(batch, logits), logits)

    with pytest.raises(TrainingError, match="^The output of the network became nan"):
        training(tmp_path, five, objective=BreakingObjective, iterations=100).run()


def test_after_a_diverged_run_the_next_starts_from_the_published_network_with_other_patches(tmp_path, five, scores):
    scores(0.5, 0.5)
    training(tmp_path, five).run()
    before = versions_in(tmp_path).published_path.read_bytes()
    interrupted(tmp_path, five, after=5)
    batches = []

    for _ in range(3):
        with pytest.raises(TrainingError):
            training(tmp_path, five, objective=breaking(1, batches), iterations=REPORTS).run()
        assert not unfinished_path(tmp_path).exists()
        assert versions_in(tmp_path).published_path.read_bytes() == before

    _, second, third = batches
    assert not torch.equal(second, third), "both started from the published network"
    assert record(tmp_path).begun == 5
    training(tmp_path, five).run()
    assert load_training_state(versions_in(tmp_path).published_path).iterations == 4


# The size of patches


@pytest.mark.parametrize("is_interrupted", [False, True])
@pytest.mark.parametrize("roi_size", [(32, 16, 16), (8, 8, 8)])
def test_requested_size_is_used_for_existing_networks(tmp_path, five, scores, is_interrupted, roi_size):
    scores(0.5, 0.5)
    if is_interrupted:
        interrupted(tmp_path, five, after=3)
    else:
        training(tmp_path, five).run()

    ended = training(tmp_path, five, roi_size=roi_size, objective=watched(batches := []), iterations=REPORTS).run()

    assert ended.iterations == (REPORTS if is_interrupted else 2 + REPORTS)
    assert {tuple(batch.shape[2:]) for batch in batches} == {roi_size}
    assert published(tmp_path).spec.roi_size == roi_size


# Continued runs


def losses(folder, annotated, **changes):
    recorder = Recorder()
    changes = {"iterations": REPORTS, "augmentation": "none", **changes}
    training(folder, annotated, objective=InExtremISObjective, listener=recorder.listener, **changes).run()
    return np.array([report.step.value.loss.item() for report in recorder.reports])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [({}, {}), ({"optimizer": "sgd", "learning_rate": 0.03, "momentum": 0.9}, {"learning_rate": 0.03})],
    ids=["with moments", "without moments"],
)
def test_first_steps_do_not_raise_the_loss_of_the_published_network(tmp_path, five, first, then):
    losses(tmp_path, five, iterations=100, **first)
    shutil.copytree(tmp_path / "model", tmp_path / "still" / "model")

    # A learning rate of nearly 0 gives the loss of the published network on the same patches.
    still, continued = losses(tmp_path / "still", five, learning_rate=1e-12), losses(tmp_path, five, **then)

    assert continued[0] == pytest.approx(still[0], rel=1e-4)
    assert np.all(continued <= 1.25 * still)
    assert continued.mean() < still.mean()


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
def test_killed_run_leaves_the_published_model_and_is_continued(tmp_path, five, scores):
    scores(0.5, 0.5)
    training(tmp_path, five).run()
    versions = versions_in(tmp_path)
    before = versions.published_path.read_bytes()

    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, capture_output=True, text=True)

    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert versions.published_path.read_bytes() == before
    assert load_training_state(unfinished_path(tmp_path)).progress == pytest.approx(7 / 20)

    following = training(tmp_path, five, iterations=20)
    rates = at_each_step(following, lambda optimizer: optimizer.param_groups[0]["lr"])
    ended = following.run()

    assert ended.iterations == 2 + 20
    h = Hyperparameters.of_preset("cpu")
    assert rates == pytest.approx([learning_rate(h, n, (7 + n) / 20) for n in range(13)])
    assert versions.published_number() == 2
    assert record(tmp_path).begun == 3


def test_full_disk_leaves_the_published_model_and_the_run_is_continued(tmp_path, five, scores, monkeypatch):
    scores(*[0.5] * 4)
    training(tmp_path, five).run()

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(ModelVersions, "publish", no_space)
        training(tmp_path, five, iterations=REPORTS).run()
    assert versions_in(tmp_path).published_number() == 1

    assert training(tmp_path, five, iterations=REPORTS).run().iterations == 2 + REPORTS


# Kinds of annotations


def test_all_kinds_of_annotations_are_used_together(tmp_path):
    kinds = [
        {"clicked": LABELS},
        {"clicked": ("lesion",)},
        {"clicked": ("lesion",), "absent": ("cyst",)},
        {"clicked": (), "absent": LABELS},
        {"clicked": (), "masked": LABELS},
        {"clicked": (), "masked": ("cyst",)},
        {"clicked": LABELS, "masked": ("lesion",)},
        {"clicked": (), "absent": ("lesion",), "masked": ("cyst",)},
    ]
    annotated = [scan(tmp_path, f"scan {number}", **kind) for number, kind in enumerate(kinds)]

    for share in (0.0, 0.5):
        ended = training(
            tmp_path,
            annotated,
            LABELS,
            objective=InExtremISObjective,
            iterations=8,
            held_out_share=share,
            click_mask_weight=1,
            train_batch_size=2,
        ).run()

        assert np.isfinite(ended.loss)
    assert published(tmp_path).spec.labels == LABELS


@pytest.mark.parametrize("kind", [{"absent": ("lesion",)}, {"masked": ("lesion",)}])
def test_scans_without_clicks_are_enough(tmp_path, kind):
    annotated = scans(tmp_path, 5, clicked=(), **kind)

    assert training(tmp_path, annotated, objective=InExtremISObjective).run().version == 1


@pytest.mark.parametrize("before", [("lesion", "cyst"), ("cyst", "lesion"), ("cyst",)])
@pytest.mark.parametrize("scan_count", [5, 4])
def test_network_of_other_labels_is_replaced(tmp_path, scores, before, scan_count):
    annotated = scans(tmp_path, scan_count, clicked=("lesion",))
    scores(*[0.9] * scan_count, *[0.1] * scan_count)
    training(tmp_path, [scan(tmp_path, one.image_id, clicked=before) for one in annotated], before).run()

    ended = training(tmp_path, annotated, ("lesion",)).run()

    assert (ended.version, ended.iterations) == (2, 2)
    assert published(tmp_path).spec.labels == ("lesion",)
