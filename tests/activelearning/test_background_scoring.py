"""Scores that follow the published model, by a process of their own."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch
from fastapi import HTTPException

from lib.activelearning import background_scoring
from lib.activelearning.background_scoring import BackgroundScoring
from lib.activelearning.scores import UncertaintyScores
from lib.activelearning.scoring_process import InterruptedScoringError, ScoringError, ScoringProcess
from lib.activelearning.uncertainty import class_entropies
from lib.data.grid import network_image
from lib.geometry.volume import load_volume
from lib.inference.prediction import predict_on_grid
from lib.infers.published_model import PublishedModel
from lib.networks.checkpoint import TrainedModel, load_checkpoint, save_checkpoint
from lib.networks.spec import NetworkSpec

LABELS = ("lesion", "cyst")
ROOT = Path(__file__).parents[2]


def publish(folder, version):
    torch.manual_seed(version)
    spec = NetworkSpec.plan(LABELS, (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=4)
    save_checkpoint(folder / "inextremis.pt", TrainedModel(spec, spec.build(), version))


@pytest.fixture
def folder(tmp_path):
    """A model and three scans."""
    publish(tmp_path, 1)
    for n, name in enumerate("abc"):
        array = np.random.default_rng(n).normal(size=(18, 17, 16)).astype(np.float32)
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    return tmp_path


def scoring(folder, unannotated="abc", busy=lambda: False):
    """`unannotated` may be an error of the archive, or hold images that nobody has fetched yet."""

    def get_unlabeled_images():
        if isinstance(unannotated, Exception):
            raise unannotated
        return list(unannotated)

    def image_path(image_id):
        path = folder / f"{image_id}.nii.gz"
        return path if path.exists() else None

    studies = SimpleNamespace(get_unlabeled_images=get_unlabeled_images, image_path=image_path)
    scores = UncertaintyScores(folder / "versions" / "uncertainty.json")
    return BackgroundScoring(PublishedModel(folder / "inextremis.pt", LABELS), studies, scores, busy)


def test_scores_are_those_of_the_published_network(folder):
    background = scoring(folder)
    model = background.model.current()

    assert background.score(model)

    kept = UncertaintyScores(folder / "versions" / "uncertainty.json")
    network = load_checkpoint(model_path(folder))
    image, _ = network_image(load_volume(folder / "b.nii.gz"), network.spec.spacing_mm)
    expected = class_entropies(predict_on_grid(network, image).numpy())
    assert kept.scored(1) == {"a", "b", "c"}
    assert [kept.of("b", label)["b"] for label in LABELS] == pytest.approx(expected, abs=1e-5)


def model_path(folder):
    return folder / "inextremis.pt"


def test_what_has_a_score_is_not_scored_again_after_a_restart(folder):
    first = scoring(folder, "ab")
    first.score(first.model.current())
    written = (folder / "versions" / "uncertainty.json").read_bytes()
    (folder / "a.nii.gz").write_bytes(b"no longer an image")

    again = scoring(folder, "ab")

    assert again._todo(1) == []
    assert again.score(again.model.current())
    assert (folder / "versions" / "uncertainty.json").read_bytes() == written
    assert scoring(folder, "abc")._todo(1) == ["c"]


@pytest.mark.parametrize("content", [b"no image", b""], ids=["other content", "empty"])
def test_scan_that_cannot_be_read_is_named_once_and_passed_over(folder, caplog, content):
    (folder / "damaged.nii.gz").write_bytes(content)
    background = scoring(folder, ["a", "damaged", "b"])

    with caplog.at_level(logging.WARNING):
        assert background.score(background.model.current())
        assert background.score(background.model.current())

    assert background.scores.scored(1) == {"a", "b"}
    assert caplog.text.count("damaged is left without a score.") == 1


def test_series_that_nobody_has_fetched_is_not_scored_until_somebody_does(folder):
    background = scoring(folder, ["a", "not fetched"])

    assert background.score(background.model.current())
    assert background.scores.scored(1) == {"a"}

    shutil.copy(folder / "b.nii.gz", folder / "not fetched.nii.gz")
    assert background.score(background.model.current())
    assert background.scores.scored(1) == {"a", "not fetched"}


def test_scan_that_goes_before_its_turn_is_passed_over(folder):
    background = scoring(folder, "ab")
    where = background.studies.image_path
    background._todo = lambda version: ["gone", "b"]

    assert where("gone") is None
    assert background.score(background.model.current())
    assert background.scores.scored(1) == {"b"}


def test_archive_that_has_never_answered_is_asked_again_later(folder, caplog):
    background = scoring(folder, HTTPException(502, "The archive does not answer."))

    assert background.score(background.model.current())
    assert "Nothing is scored. The archive does not answer." in caplog.text


def test_nothing_is_scored_while_a_training_runs(folder):
    training = SimpleNamespace(runs=True)
    background = scoring(folder, busy=lambda: training.runs)

    assert not background.score(background.model.current())
    assert background.scores.scored(1) == set()

    training.runs = False
    assert background.score(background.model.current())
    assert background.scores.scored(1) == {"a", "b", "c"}


def test_newer_publication_ends_the_scoring_with_the_one_before(folder):
    background = scoring(folder)
    older = background.model.current()
    publish(folder, 2)

    assert not background.score(older)
    assert background.score(background.model.current())

    assert background.scores.scored(2) == {"a", "b", "c"}


def test_of_many_scans_a_part_is_scored_with_each_version(folder, monkeypatch):
    monkeypatch.setattr(background_scoring, "MOST_SCANS", 2)
    background = scoring(folder)
    background.score(background.model.current())
    first = background.scores.scored(1)
    publish(folder, 2)

    background.score(background.model.current())

    assert len(first) == len(background.scores.scored(2)) == 2
    left = scoring(folder, sorted(set("abc") - {min(background.scores.scored(2))}))
    assert len(left._todo(2)) == 1


def test_publication_is_noticed_while_the_server_runs(folder, monkeypatch):
    monkeypatch.setattr(background_scoring, "POLL_S", 0.1)
    model_path(folder).unlink()
    background = scoring(folder, "a")
    background.start()
    publish(folder, 7)

    end = time.monotonic() + 60
    while background.scores.scored(7) != {"a"}:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_process_that_dies_costs_one_scan(folder):
    with ScoringProcess(model_path(folder), torch.device("cpu")) as process:
        process.score(folder / "a.nii.gz")
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(ScoringError, match="b.nii.gz cannot be scored"):
            process.score(folder / "b.nii.gz")
        version, scores = process.score(folder / "b.nii.gz")

    assert version == 1
    assert len(scores) == len(LABELS)


def test_interruption_ends_the_process_at_once(folder):
    process = ScoringProcess(model_path(folder), torch.device("cpu"))

    with pytest.raises(InterruptedScoringError), process:
        process.score(folder / "a.nii.gz", interrupted=lambda: True)

    assert process._process is None


SERVER = """
import signal, sys, threading, time, torch
from lib.activelearning.scoring_process import ScoringProcess
if __name__ == "__main__":
    # A shell that starts the tests in the background has them, and what they start, ignore a Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = sys.argv[1]
    process = ScoringProcess(folder + "/inextremis.pt", torch.device("cpu"))
    process.score(folder + "/a.nii.gz")
    print(process._process.pid, flush=True)
    def score():
        while True:
            process.score(folder + "/a.nii.gz")
    threading.Thread(target=score, daemon=True).start()
    time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_server_however_that_ends(folder, tmp_path, end):
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    server = subprocess.Popen(
        [sys.executable, script, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    child = psutil.Process(int(server.stdout.readline()))

    server.send_signal(end)

    server.wait(5)
    server.stdout.close()
    child.wait(5)
