"""Each change of a project is reported once."""

import pytest

from lib.server.changes import Changes
from lib.server.studies.open_studies import open_studies
from tests.server.studies.images import LABELS, click, submit, write_image


@pytest.fixture
def studies(tmp_path):
    for patient, name in enumerate(("a.nii.gz", "b.nii.gz")):
        write_image(tmp_path / "studies" / name, patient)
    return open_studies(str(tmp_path / "studies"), LABELS, None)


@pytest.fixture
def changes(studies):
    changes = Changes(studies, lambda: {"running": False, "remaining_s": None}, lambda: None)
    assert changes.look() == {}
    return changes


CHANGES = {
    "clicks": lambda studies, folder: click(studies, "a", "tumour"),
    "mask": lambda studies, folder: submit(studies, "a"),
    "skip": lambda studies, folder: studies.skips.skip("a", "", "anna"),
    "lease": lambda studies, folder: studies.leases.renew("a", "anna"),
    "deletion": lambda studies, folder: studies.remove_image("a"),
    "another server": lambda studies, folder: click(open_studies(str(folder), LABELS, None), "a", "cyst"),
    "file that is gone": lambda studies, folder: (folder / "a.nii.gz").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_study_is_named_once(studies, changes, tmp_path, change):
    change(studies, tmp_path / "studies")

    assert changes.look() == {"studies": {"ids": ["a"]}}
    assert changes.look() == {}


def test_new_image_is_named(changes, tmp_path):
    write_image(tmp_path / "studies" / "c.nii.gz", 5)

    assert changes.look() == {"studies": {"ids": ["c"]}}


def test_repeated_answer_is_a_change(studies, changes):
    click(studies, "a", "tumour")
    changes.look()
    click(studies, "a", "tumour")

    assert changes.look() == {"studies": {"ids": ["a"]}}


def test_reading_of_one_reader_is_hidden_from_others(tmp_path):
    write_image(tmp_path / "studies" / "a.nii.gz")
    studies = open_studies(str(tmp_path / "studies"), LABELS, None, readers=2)
    changes = Changes(studies, dict, lambda: None)
    changes.look()
    reading = studies.readings.of("anna")
    reading.image_path = studies.image_path

    click(reading, "a", "tumour")

    assert changes.look() == {}


def test_changes_of_training_and_model(studies):
    training, model = {"running": False, "remaining_s": 5}, None
    changes = Changes(studies, lambda: training, lambda: model)
    changes.look()
    training = {"running": False, "remaining_s": 4}
    assert changes.look() == {}
    training, model = {"running": True, "remaining_s": 3}, {"version": 1, "published": "now"}
    assert changes.look() == {"training": training, "model": {"version": 1}}
    model = None
    assert changes.look() == {"model": {"version": None}}
