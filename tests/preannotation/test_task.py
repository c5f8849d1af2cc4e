"""Which studies are segmented in advance, and what is stored of each."""

import os

import numpy as np
import pytest

from lib.annotations.image_identity import voxel_checksum
from lib.annotations.proposal import Proposal
from lib.geometry.volume import load_volume
from lib.networks.checkpoint import load_checkpoint
from lib.preannotation.job import Job
from lib.preannotation.pending import pending_studies
from lib.preannotation.task import WorkerError, _opened, propose
from lib.server.studies.open_studies import open_studies
from lib.server.studies.study_list import StudyList
from lib.trainers.annotated_scans import annotated_scans
from lib.training.loop import TrainingError
from tests.preannotation.projects import AFFINE, proposed, publish, tiny_project, unfinished
from tests.server.studies.images import click, say_absent, submit, write_image

IMAGES = ["s0000", "s0001", "s0002"]
LABELS = ("lesion",)


@pytest.fixture
def folder(tmp_path):
    return tiny_project(tmp_path / "studies", len(IMAGES))


@pytest.fixture
def studies(folder):
    return open_studies(str(folder), LABELS, None)


@pytest.fixture(autouse=True)
def worker_of_this_test():
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.umask(umask)
    _opened.cache_clear()


def job_of(studies, model):
    folder = str(studies.project.folder)
    return Job(
        folder, folder, studies.identity.id, f"{folder}/model", studies.labels, model.version, model.sha256, readers=1
    )


@pytest.fixture
def model(folder):
    return load_checkpoint(folder / "model" / "inextremis.pt")


def run(studies, model, *images):
    return [propose(image, job_of(studies, model)) for image in images or pending_studies(studies, model)]


@pytest.mark.slow
def test_every_study_is_proposed_once(folder, studies, model):
    assert [outcome.state for outcome in run(studies, model)] == ["stored"] * 3
    assert proposed(folder) == set(IMAGES) and unfinished(folder) == []
    assert pending_studies(studies, model) == []
    assert run(studies, model, "s0001")[0].state == "kept"  # of a worker that was taken for dead


def test_proposal_says_what_made_it_and_that_nobody_has_looked_at_it(folder, studies, model):
    (outcome,) = run(studies, model, "s0001")
    record = studies.masks("proposal").record("s0001")

    assert record.annotator == "automatic" and record.created
    assert record.image_checksum == voxel_checksum(load_volume(folder / "s0001.nii.gz").array)
    said = record.info["proposal"]
    assert (said["model_version"], said["model_sha256"], said["unreviewed"]) == (1, model.sha256, True)
    assert 0 <= said["quality"] == outcome.quality <= 1
    mask, image = studies.masks("proposal").load("s0001"), load_volume(folder / "s0001.nii.gz")
    assert mask.geometry.is_close(image.geometry) and set(np.unique(mask.array)) <= {0, 1}


def test_studies_that_somebody_has_settled_are_left_out(folder, studies, model):
    submit(studies, "s0000", labels=LABELS)
    say_absent(studies, "s0001", "lesion")
    studies.skips.skip("s0002", "blurred", "anna")

    assert pending_studies(studies, model) == []
    studies.skips.end("s0002")
    click(studies, "s0002", "lesion")  # is not final yet
    assert pending_studies(studies, model) == ["s0002"]


def test_mask_that_was_drawn_while_the_study_was_segmented_stands_alone(folder, studies, model):
    submit(studies, "s0000", labels=LABELS)

    assert run(studies, model, "s0000")[0].state == "kept"
    assert proposed(folder) == set()


@pytest.mark.parametrize(("score", "expected"), [(0.6, IMAGES), (0.5, []), (0.4, []), (None, [])])
def test_model_with_a_better_score_replaces_proposals(folder, studies, score, expected, model):
    run(studies, model)
    newer = publish(folder, score, seed=1)

    assert pending_studies(studies, newer) == expected
    run(studies, newer)
    version = 2 if expected else 1
    assert [Proposal.of(studies.masks("proposal").record(i).info).model_version for i in IMAGES] == [version] * 3
    assert not (folder / "labels" / "proposal" / "history").exists()


def test_proposal_that_was_accepted_is_not_replaced(folder, studies, model):
    run(studies, model)
    submit(studies, "s0001", labels=LABELS)

    assert pending_studies(studies, publish(folder, 0.9, seed=1)) == ["s0000", "s0002"]


def test_image_that_was_replaced_is_proposed_anew(folder, studies, model):
    run(studies, model)
    write_image(folder / "s0001.nii.gz", 77, (24, 24, 24), AFFINE)

    assert pending_studies(studies, model) == ["s0001"]
    assert [outcome.state for outcome in run(studies, model)] == ["stored"]
    assert pending_studies(studies, model) == []


def test_damaged_proposal_is_made_anew(folder, studies, model):
    run(studies, model)
    (folder / "labels" / "proposal" / "s0002.nii.gz").write_bytes(b"half a ma")

    assert pending_studies(studies, model) == ["s0002"]


def test_nothing_is_learnt_from_proposals(folder, studies, model):
    run(studies, model)

    assert not studies.has_answers()
    with pytest.raises(TrainingError, match="nothing to learn from"):
        annotated_scans(studies, LABELS)
    assert studies.get_unlabeled_images() == IMAGES
    assert studies.status()["completed"] == 0


def test_proposed_study_is_listed_with_its_quality_until_it_is_final(folder, studies, model):
    (outcome,) = run(studies, model, "s0001")

    def states():
        return [(entry["state"], entry["quality"]) for entry in StudyList(studies).entries("anna")]

    assert states() == [("untouched", None), ("proposed", outcome.quality), ("untouched", None)]
    click(studies, "s0001", "lesion")
    assert states()[1] == ("clicked", outcome.quality)
    submit(studies, "s0001", labels=LABELS)
    assert states()[1] == ("final", None)


def test_study_that_cannot_be_read_fails_with_the_reason(folder, studies, model):
    (folder / "s0001.nii.gz").write_bytes(b"no scan")
    (outcome,) = run(studies, model, "s0001")

    assert outcome.state == "failed" and "s0001.nii.gz cannot be read" in outcome.reason
    assert run(studies, model, "gone")[0].reason == "Its file is missing."


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [({"project_dir": "not mounted"}, "mount it"), ({"model_sha256": "0" * 64}, "Version 1 of the model is not in")],
)
def test_worker_without_the_project_or_the_model_does_nothing(folder, studies, model, changed, sentence, monkeypatch):
    monkeypatch.chdir(folder.parent)
    job = Job(**{**vars(job_of(studies, model)), **changed})

    with pytest.raises(WorkerError, match=sentence):
        propose("s0000", job)
    assert not (folder.parent / "not mounted").exists()
    assert proposed(folder) == set()


def test_run_goes_on_with_its_model_when_another_is_published(folder, studies, model):
    job = job_of(studies, model)
    publish(folder, 0.9, seed=1)
    propose("s0000", job)

    assert Proposal.of(studies.masks("proposal").record("s0000").info).model_sha256 == job.model_sha256
