"""What becomes final when an annotator accepts the mask that was given last, and what is refused with a sentence."""

import os

import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.given_masks import GivenMask, clicks_digest
from lib.annotations.mask_origin import origins
from lib.annotations.store import Annotation
from lib.server.masks.acceptance import accept, take_back
from lib.server.studies.open_studies import open_studies
from lib.server.studies.removal import removals, restore
from tests.full_disk import no_space
from tests.server.refusals import refusal
from tests.server.studies.images import CLICKS, LABELS, SHAPE, contents, geometry, say_absent, submit, write_image

FIRST, SECOND, THIRD = (f"2026-01-01T10:00:0{second}.000+00:00" for second in (0, 5, 9))


class Scan:
    """An image of a folder, and what its annotators do."""

    def __init__(self, folder, labels=LABELS):
        self.path = write_image(folder / "scan.nii.gz")
        self.studies = open_studies(str(folder), labels, None)

    def click(self, label="tumour", annotator="reader", clicks=CLICKS, background=None, created=FIRST):
        checksum = self.studies.identities.checksum(self.path)
        points = ExtremePoints.from_clicks(label, clicks, background)
        self.studies.clicks.save(Annotation("scan", points, geometry(), annotator, created, checksum))
        return points

    def show(self, points, voxels, annotator="reader", given=SECOND, version=None, new_clicks=True):
        """Show a label in a box of voxels, such as np.s_[2:5, 3:6, 2:4]."""
        mask = np.zeros(SHAPE, bool)
        mask[voxels] = True
        checksum = self.studies.identities.checksum(self.path)
        shown = GivenMask(clicks_digest(points, checksum), (0, 0, 0), mask, given, version)
        self.studies.given_masks.keep("scan", points.label, annotator, shown, new_clicks=new_clicks)

    def accept(self, *labels, annotator="reader"):
        request = {"labels": list(labels)} if labels else {}
        return accept(self.studies, "scan", self.path, request, annotator)

    def take_back(self, annotator="reader"):
        return take_back(self.studies, "scan", annotator)

    def final(self):
        return self.studies.masks().load("scan").array

    def record(self):
        return self.studies.masks().record("scan")


@pytest.fixture
def scan(tmp_path):
    return Scan(tmp_path / "studies")


def boxes(*drawn):
    """Make a label map with these boxes, a value and the voxels each, the later ones on top."""
    label_map = np.zeros(SHAPE, np.uint8)
    for value, voxels in drawn:
        label_map[voxels] = value
    return label_map


BOTH = {"tumour": "accepted", "cyst": "accepted"}
A, B, C = np.s_[1:5, 1:5, 1:5], np.s_[3:8, 3:8, 3:6], np.s_[8:9, 1:2, 1:2]


@pytest.fixture
def accepted(scan):
    """Show the tumour, clicked by "reader", in the box A and accept it."""
    scan.show(scan.click(), A)
    scan.accept()
    return scan


def test_mask_that_was_given_becomes_final_for_its_label_alone(scan):
    scan.show(scan.click("cyst"), A)

    answer, is_new = scan.accept()

    assert (answer["image"], list(answer["labels"]), is_new) == ("scan", ["cyst"], True)
    np.testing.assert_array_equal(scan.final(), boxes((2, A)))
    assert scan.record().labels == {"cyst": 2}
    assert scan.studies.masks().load("scan").geometry.is_close(geometry())


def test_record_says_who_accepted_what_and_how(scan):
    scan.click(created="2026-01-01T09:00:00.000+00:00", annotator="other")
    scan.show(scan.click(created=FIRST), A, version=7)

    accepted = scan.accept()[0]["labels"]["tumour"]

    record = scan.record()
    assert record.info["accepted"] == {"tumour": accepted}
    assert (record.annotator, record.image_checksum) == ("reader", scan.studies.identities.checksum(scan.path))
    assert {key: accepted[key] for key in ("annotator", "origin", "model_version", "clicks")} == {
        "annotator": "reader",
        "origin": "accepted",
        "model_version": 7,
        "clicks": 6,
    }
    since = np.datetime64(accepted["created"][:-6]) - np.datetime64(FIRST[:-6])
    assert accepted["seconds"] == pytest.approx(since / np.timedelta64(1, "s"), abs=0.1)
    assert scan.studies.get_label_info("scan", "final")["accepted"] == {"tumour": accepted}


@pytest.mark.parametrize(
    "corrected", [{"clicks": np.concatenate([CLICKS, [[4, 4, 4]]])}, {"background": np.array([[4, 4, 4]])}]
)
def test_mask_of_corrective_clicks_is_recorded_as_corrected(scan, corrected):
    scan.show(scan.click(**corrected), A)

    accepted = scan.accept()[0]["labels"]["tumour"]

    assert (accepted["origin"], accepted["clicks"]) == ("corrected", 7)


def test_who_accepts_without_having_clicked_took_no_time_that_is_known(scan):
    scan.show(scan.click(annotator="import"), A, annotator="reader", new_clicks=False)

    assert scan.accept()[0]["labels"]["tumour"]["seconds"] is None


# Several labels


CLAIMS = {
    "one of two labels": (None, {"tumour": (A, FIRST), "cyst": (C, FIRST)}, [["cyst"]], [(2, C)], {"cyst": "accepted"}),
    "over another label": (
        2,
        {"tumour": (A, FIRST)},
        [[]],
        [(2, ...), (1, A)],
        {"tumour": "accepted", "cyst": "drawn"},
    ),
    "over its own label": (1, {"tumour": (A, FIRST)}, [[]], [(1, A)], {"tumour": "accepted", "cyst": "drawn"}),
    "later cyst": (None, {"tumour": (A, FIRST), "cyst": (B, SECOND)}, [[]], [(1, A), (2, B)], BOTH),
    "later tumour": (None, {"cyst": (A, FIRST), "tumour": (B, SECOND)}, [[]], [(2, A), (1, B)], BOTH),
    "cyst accepted later": (
        None,
        {"tumour": (A, SECOND), "cyst": (B, FIRST)},
        [["tumour"], ["cyst"]],
        [(1, A), (2, B)],
        BOTH,
    ),
}


@pytest.mark.parametrize(("before", "shown", "accepts", "final", "how"), CLAIMS.values(), ids=CLAIMS)
def test_voxels_are_those_of_the_label_that_claims_them_last(scan, before, shown, accepts, final, how):
    if before is not None:
        submit(scan.studies, "scan", value=before)
    for label, (voxels, given) in shown.items():
        scan.show(scan.click(label), voxels, given=given)

    for labels in accepts:
        scan.accept(*labels)

    np.testing.assert_array_equal(scan.final(), boxes(*final))
    assert origins(scan.record()) == how


def test_upload_after_an_acceptance_is_drawn(accepted):
    submit(accepted.studies, "scan", value=1)

    assert origins(accepted.record()) == {"tumour": "drawn", "cyst": "drawn"}


def test_final_mask_of_another_image_of_that_name_is_not_built_on(scan):
    submit(scan.studies, "scan", value=2)
    write_image(scan.path, patient=1)
    scan.show(scan.click("tumour"), A)

    scan.accept()

    np.testing.assert_array_equal(scan.final(), boxes((1, A)))
    assert scan.record().labels == {"tumour": 1}


def test_accepting_again_changes_nothing_also_after_a_restart(scan):
    scan.show(scan.click(), A)
    scan.studies = open_studies(str(scan.path.parent), LABELS, None)
    first, _ = scan.accept()
    before = contents(scan.studies.project.labels)
    np.testing.assert_array_equal(scan.final(), boxes((1, A)))

    assert scan.accept() == (first, False)
    assert contents(scan.studies.project.labels) == before


# Taken back


def test_taking_back_leaves_no_final_mask_where_there_was_none(accepted):
    assert accepted.take_back() == {"image": "scan", "final_mask": False}

    assert accepted.studies.masks().path("scan") is None
    assert accepted.accept()[1], "and it can be accepted anew"


def test_taking_back_brings_the_mask_before_back_one_after_the_other(scan):
    before = submit(scan.studies, "scan", value=2).read_bytes()
    scan.show(scan.click("tumour"), A)
    scan.accept()
    scan.show(scan.click("tumour", clicks=CLICKS + [0, 0, 1]), B, given=THIRD)
    scan.accept()

    assert scan.take_back()["final_mask"]
    np.testing.assert_array_equal(scan.final(), boxes((2, ...), (1, A)))
    assert scan.take_back()["final_mask"]
    assert scan.studies.masks().path("scan").read_bytes() == before
    status, sentence = refusal(scan.take_back)
    assert status == 409
    assert "was submitted and not accepted" in sentence


def test_only_who_accepted_takes_it_back(accepted):
    status, sentence = refusal(accepted.take_back, annotator="other")

    assert status == 409
    assert "was accepted by 'reader'" in sentence
    np.testing.assert_array_equal(accepted.final(), boxes((1, A)))


def test_nothing_to_take_back_is_not_found(scan):
    assert refusal(scan.take_back)[0] == 404
    assert refusal(take_back, scan.studies, "other", "reader")[0] == 404


# Refusals


def moved(scan):
    scan.show(scan.click(), A)
    scan.click(clicks=CLICKS + [0, 0, 1])


def clicked_by_another(scan):
    scan.show(scan.click(), A)
    scan.show(scan.click(annotator="other"), A, annotator="other")


def absent(scan):
    scan.show(scan.click(), A)
    say_absent(scan.studies, "scan", "tumour")


def another_image(scan):
    scan.show(scan.click(), A)
    write_image(scan.path, patient=1)


def another_grid(scan):
    scan.show(scan.click(), A)
    write_image(scan.path, shape=(10, 9, 9))


def damaged_mask(scan):
    scan.show(scan.click(), A)
    (path,) = scan.studies.given_masks.files("scan")
    path.write_bytes(path.read_bytes()[:-2])


def folder_in_its_place(scan):
    damaged_mask(scan)
    (path,) = scan.studies.given_masks.files("scan")
    path.unlink()
    path.mkdir()


def damaged_clicks(scan):
    scan.show(scan.click(), A)
    scan.studies.clicks.path("scan", "tumour").write_bytes(b"{")


def damaged_final_mask(scan):
    scan.show(scan.click(), A)
    submit(scan.studies, "scan").write_bytes(b"no mask")


def final_mask_of_another_label(scan):
    scan.show(scan.click(), A)
    submit(scan.studies, "scan", value=1, labels=("vessel",))


REFUSALS = {
    "nothing clicked": (lambda scan: None, 404, "no clicks on tumour, cyst in the image 'scan'; click first"),
    "absent": (absent, 404, "no clicks on tumour, cyst in the image 'scan'; click first"),
    "nothing given": (Scan.click, 409, "no mask of the stored clicks, which are by 'reader', was given to 'reader'"),
    "moved clicks": (moved, 409, "the clicks were changed by 'reader' since a mask was given to 'reader'. Ask for"),
    "another's clicks": (clicked_by_another, 409, "which are by 'other', was given to 'reader'. Ask for the mask"),
    "another image": (another_image, 409, "the image is not the one that was clicked on. Click it again."),
    "another grid": (another_grid, 409, "the image is not the one that was clicked on. Click it again."),
    "damaged mask": (damaged_mask, 409, "The stored mask of label 'tumour' cannot be read. Ask for the mask"),
    "no file": (folder_in_its_place, 409, "The stored mask of label 'tumour' cannot be read. Ask for the mask"),
    "damaged clicks": (damaged_clicks, 409, "scan.tumour.json is not JSON"),
    "damaged final mask": (damaged_final_mask, 409, "scan.nii.gz cannot be read"),
    "label that is gone": (final_mask_of_another_label, 409, "holds the label 'vessel', and this app has tumour, cyst"),
}


@pytest.mark.parametrize(("prepare", "status", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_accepted_is_refused_with_a_sentence_and_changes_nothing(scan, prepare, status, sentence):
    prepare(scan)
    before = contents(scan.studies.project.masks())

    found = refusal(scan.accept)

    assert found[0] == status
    assert sentence in found[1]
    assert contents(scan.studies.project.masks()) == before


def test_new_clicks_replace_a_damaged_mask(scan):
    damaged_mask(scan)

    scan.show(scan.click(), A)

    assert scan.accept()[1]


def test_label_that_was_not_given_refuses_the_others_unless_they_are_named(scan):
    scan.show(scan.click("tumour"), A)
    scan.click("cyst", annotator="other")

    assert refusal(scan.accept) == (409, refusal(scan.accept, "cyst")[1])
    scan.accept("tumour")

    np.testing.assert_array_equal(scan.final(), boxes((1, A)))


@pytest.mark.parametrize(
    ("labels", "status", "sentence"),
    [
        (["vessel"], 422, "Label 'vessel' does not exist in this app; its labels are 'tumour', 'cyst'"),
        (["tumour", "vessel"], 422, "Label 'vessel' does not exist"),
        ("tumour", 422, "The value of 'labels' is 'tumour'; expected a list of labels"),
        ({"tumour": 1}, 422, "expected a list of labels"),
        (7, 422, "The value of 'labels' is 7"),
        ([["tumour"]], 422, "Label ['tumour'] does not exist"),
        ([{}], 422, "Label {} does not exist"),
        ([], 422, "The list 'labels' is empty"),
        (None, 422, "The list 'labels' is empty"),
        (["../tumour"], 422, "Label '../tumour' does not exist"),
        (["cyst"], 404, "no clicks on cyst"),
    ],
)
def test_labels_of_a_request(scan, labels, status, sentence):
    scan.show(scan.click("tumour"), A)

    found = refusal(accept, scan.studies, "scan", scan.path, {"labels": labels}, "reader")

    assert found[0] == status
    assert sentence in found[1]


@pytest.mark.parametrize("change", ["accept", "take_back"])
def test_full_disk_is_said_and_leaves_the_mask_before(scan, monkeypatch, change):
    submit(scan.studies, "scan", value=2)
    scan.show(scan.click(), A)
    if change == "take_back":
        scan.accept()
    before = scan.studies.masks().path("scan").read_bytes()

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", no_space)
        status, sentence = refusal(getattr(scan, change))

    assert status == 507
    assert sentence == (
        "The mask could not be stored (No space left on device). Make room on the server's disk, then retry."
    )
    assert scan.studies.masks().path("scan").read_bytes() == before


# Deletion


def bring_back(scan):
    for removal in list(removals(scan.studies.project, scan.studies.image_folder)):
        restore(removal)


@pytest.mark.parametrize(
    "delete", [lambda s: s.remove_image("scan"), lambda s: s.remove_label("scan", "extreme_points")]
)
def test_what_is_deleted_takes_the_given_masks_along_and_brings_them_back(scan, delete):
    scan.show(scan.click(), A)

    delete(scan.studies)
    assert refusal(scan.accept)[0] == 404 or not scan.path.exists()
    assert scan.studies.given_masks.files("scan") == []
    bring_back(scan)
    scan.accept()

    np.testing.assert_array_equal(scan.final(), boxes((1, A)))


def test_accepted_mask_that_is_deleted_can_be_accepted_again(accepted):
    accepted.studies.remove_label("scan", "final")

    assert accepted.accept()[1]
    assert accepted.take_back() == {"image": "scan", "final_mask": False}
