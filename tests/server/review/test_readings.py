"""Readings and decisions without a server: names, labels that come and go, damage, decisions that were cut short."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.annotations.store import AnnotationStore
from lib.server.review.agreements import Agreements
from lib.server.review.decisions import THIRD, Choice, Review
from lib.server.review.readings import folder_name
from lib.server.studies.open_studies import open_studies
from lib.trainers.annotated_scans import annotated_scans
from tests.server.refusals import refusal
from tests.server.studies.images import LABELS, click, contents, say_absent, submit, write_image

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@pytest.fixture
def folder(tmp_path):
    write_image(tmp_path / "studies" / "scan.nii.gz")
    return tmp_path / "studies"


def opened(folder, labels=LABELS, readers=2):
    return open_studies(str(folder), labels, None, readers=readers)


def read(studies, reader, image_id="scan", value=1, labels=LABELS):
    """Store clicks and a mask of a reader."""
    with studies.readings.changing(image_id, reader) as reading:
        submit(_At(reading, studies), image_id, value=value, labels=labels)
    click(_At(studies.readings.of(reader), studies), image_id)


def read_by_two(folder):
    """Open the studies, and let two people read one of them."""
    studies = opened(folder)
    for reader in ("anna", "bert"):
        read(studies, reader)
    return studies


class _At:
    """Reading that has `image_path`, as studies have."""

    def __init__(self, reading, studies):
        self._reading, self.image_path = reading, studies.image_path

    def __getattr__(self, name):
        return getattr(self._reading, name)


def entry(studies, image_id="scan", reviewer="rita"):
    return Review(studies.readings).entry(image_id, reviewer)


def decide(studies, reader, image_id="scan", reviewer="rita"):
    choice = Choice(reader, entry(studies, image_id, reviewer)["version"])
    return Review(studies.readings).decide(image_id, choice, reviewer)


@given(NAMES)
def test_each_reader_has_a_plain_folder(name):
    made = folder_name(name)

    assert made == Path(made).name and made.isascii() and not made.startswith(".") and len(made) <= 120


@given(NAMES, NAMES)
def test_no_two_readers_have_the_same_folder(one, other):
    assert (folder_name(one) == folder_name(other)) == (one == other)


@pytest.mark.parametrize("name", ["..", ".", "../../x", "a/b", "rené", "Anna", " ", "%2E%2E", "x" * 500, "third"])
def test_reader_of_any_name_has_a_reading_in_the_folder_of_the_project(folder, name):
    before = contents(folder.parent)
    studies = opened(folder)
    read(studies, name)

    new = contents(folder.parent).keys() - before.keys()
    of_readers = [path for path in new if path.is_relative_to("studies/readings")]
    assert len(of_readers) == 1 + 1 + len(LABELS) + 1  # the name, the mask, the clicks, what was found in the mask
    assert {path.parts[2] for path in of_readers} == {folder_name(name)}
    assert opened(folder).readings.readers() == [name]
    assert not studies.has_answers()
    assert opened(folder).readings.finished() == {"scan": {name}}


def test_reader_whose_name_is_damaged_is_known_by_their_folder(folder, caplog):
    studies = opened(folder)
    read(studies, "rené")
    (studies.project.readings / folder_name("rené") / "reader.json").write_bytes(b"{")

    assert opened(folder).readings.readers() == ["rené"]
    assert "reader.json of ren%C3%A9 cannot be read" in caplog.text


def test_damaged_mask_of_a_reader_is_told_and_keeps_nothing_else_from_being_listed(folder):
    write_image(folder / "other.nii.gz", patient=1)
    studies = opened(folder)
    for image_id in ("scan", "other"):
        for reader in ("anna", "bert"):
            read(studies, reader, image_id)
    mask = studies.readings.of("anna").masks().path("scan")
    content = gzip.decompress(mask.read_bytes())
    mask.write_bytes(gzip.compress(content[:-10] + b"\x07" * 10))  # of no label

    listed = {one["id"]: one for one in Review(studies.readings).listing("rita")}

    assert listed["other"]["agreement"]["dice"] == 1
    assert "holds the value 7" in listed["scan"]["agreement"]["problem"]
    status, sentence = refusal(decide, studies, "anna")
    assert status == 409 and "The decision was left as it was" in sentence
    assert studies.decided() == set()
    assert decide(studies, "bert")["reader"] == "bert"


def test_reader_whose_mask_is_damaged_altogether_has_not_finished(folder):
    studies = read_by_two(folder)
    studies.readings.of("anna").masks().path("scan").write_bytes(b"damaged")

    assert opened(folder).readings.finished() == {"scan": {"bert"}}
    assert {one["reader"]: one["finished"] for one in entry(studies)["readings"]} == {"anna": False, "bert": True}


def test_label_that_is_added_opens_a_decided_study_again_for_the_same_readings(folder):
    studies = opened(folder, ("tumour",))
    for reader in ("anna", "bert"):
        read(studies, reader, labels=("tumour",))
    decide(studies, "anna")

    studies = opened(folder)
    assert studies.decided() == set() and studies.get_unlabeled_images() == ["scan"]
    assert entry(studies)["state"] == "in work"
    for reader in ("anna", "bert"):
        read(studies, reader)
    assert entry(studies)["state"] == "to decide"
    assert decide(studies, "bert")["reader"] == "bert"
    Review(studies.readings).take_back("scan")

    # What was decided before is there again.
    assert opened(folder, ("tumour",)).readings.decision("scan")["reader"] == "anna"


def test_readings_of_a_label_that_was_renamed_are_to_be_done_anew(folder):
    studies = read_by_two(folder)

    studies = opened(folder, ("tumour", "abscess"))

    assert entry(studies)["state"] == "in work" and studies.readings.finished() == {}
    for reader in ("anna", "bert"):
        read(studies, reader, labels=("tumour", "abscess"))
    assert decide(studies, "anna")["reader"] == "anna"


def test_labels_in_another_order_are_compared_and_decided_by_name(folder):
    studies = opened(folder)
    for reader, value in (("anna", 1), ("bert", 2)):
        read(studies, reader, value=value)

    studies = opened(folder, LABELS[::-1])
    agreement = entry(studies)["agreement"]["pairs"][0]["labels"]
    decide(studies, "anna")

    assert {label: of["dice"] for label, of in agreement.items()} == {"tumour": 0, "cyst": 0}
    assert np.unique(studies.masks().load("scan").array).tolist() == [2]  # the tumour, which is second now


def test_study_of_which_a_label_is_drawn_and_the_other_absent_is_read(folder):
    studies = opened(folder)
    for reader in ("anna", "bert"):
        with studies.readings.changing("scan", reader) as reading:
            submit(_At(reading, studies), "scan", labels=("tumour",))
        assert not studies.readings.of(reader).begun(["scan"])["scan"]
        say_absent(_At(studies.readings.of(reader), studies), "scan", "cyst")

    decide(studies, "anna")

    assert set(studies.masks().record("scan").labels) == set(LABELS)
    assert np.unique(studies.masks().load("scan").array).tolist() == [1]
    (scan,) = annotated_scans(studies, LABELS)
    assert set(scan.mask_labels) == set(LABELS) and scan.absent == ("cyst",)


def test_reading_of_an_image_that_was_replaced_counts_for_nothing(folder):
    read_by_two(folder)
    write_image(folder / "scan.nii.gz", patient=5)

    assert opened(folder).readings.finished() == {}


def test_clicks_on_an_image_that_was_replaced_do_not_come_along(folder):
    studies = read_by_two(folder)
    write_image(folder / "scan.nii.gz", patient=5)
    studies = opened(folder)
    for reader in ("anna", "bert"):
        with studies.readings.changing("scan", reader) as reading:
            submit(_At(reading, studies), "scan")

    decide(studies, "anna")

    assert list(studies.clicks.answers()) == []
    assert studies.decided() == {"scan"}


@pytest.mark.parametrize("finished", [2, 3])
def test_three_people_read_where_three_should(folder, finished):
    studies = opened(folder, readers=3)
    for reader in ("anna", "bert", "carl")[:finished]:
        read(studies, reader)

    assert entry(studies)["state"] == ("to decide" if finished == 3 else "in work")
    if finished == 3:
        assert len(entry(studies)["agreement"]["pairs"]) == 3


def test_decision_that_was_cut_short_after_its_mask_is_completed_by_deciding_again(folder):
    studies = read_by_two(folder)
    decide(studies, "anna")
    for path in studies.clicks.paths_of("scan"):
        path.unlink()

    decide(studies, "anna")

    assert {answer.annotator for answer in studies.clicks.answers()} == {"reader"}
    assert len(studies.clicks.paths_of("scan")) == len(LABELS)
    assert refusal(decide, studies, "bert")[0] == 409


def test_taking_back_leaves_clicks_that_came_from_elsewhere(folder):
    studies = opened(folder)
    click(studies, "scan", "tumour")
    before = AnnotationStore(studies.project.clicks).load("scan", "tumour").created
    for reader in ("anna", "bert"):
        read(studies, reader)
    decide(studies, "anna")
    assert studies.clicks.load("scan", "tumour").created != before

    Review(studies.readings).take_back("scan")

    assert studies.clicks.load("scan", "tumour").created == before
    assert [path.name for path in studies.clicks.paths_of("scan")] == ["scan.tumour.json"]


def test_reader_who_is_called_third_can_be_chosen(folder):
    studies = opened(folder)
    for reader in (THIRD, "bert"):
        read(studies, reader)

    assert decide(studies, THIRD)["reader"] == THIRD


def test_server_of_one_reader_lets_the_readings_be(folder):
    studies = read_by_two(folder)
    before = contents(studies.project.readings)

    studies = opened(folder, readers=1)

    assert studies.get_unlabeled_images() == ["scan"]
    click(studies, "scan")
    assert studies.get_labeled_images() == ["scan"]
    assert contents(studies.project.readings) == before


def test_agreement_is_computed_once_for_a_version_of_the_readings(folder, monkeypatch):
    studies = opened(folder)
    for reader, value in (("anna", 1), ("bert", 1)):
        read(studies, reader, value=value)
    assert entry(studies)["agreement"]["dice"] == 1
    monkeypatch.setattr(Agreements, "_measured", lambda *_: pytest.fail("computed again"))
    assert entry(opened(folder))["agreement"]["dice"] == 1
    monkeypatch.undo()

    read(studies, "bert", value=2)
    assert entry(studies)["agreement"]["dice"] == 0
