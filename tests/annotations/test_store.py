import json
import time
from datetime import datetime

import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Absence, Annotation, AnnotationFileError, AnnotationStore
from lib.geometry.image_geometry import ImageGeometry
from tests.annotations.writing import start_writer

GEOMETRY = ImageGeometry((40, 50, 12), np.diag([0.5, 0.6, 6.5, 1.0]))
CLICKS = np.array([[10, 20, 5], [30, 21, 5], [20, 11, 5], [20, 31, 5], [20, 20, 2], [20, 20, 9]])


def annotation(image_id="scan.01", label="lesion", shift=0):
    points = ExtremePoints.from_clicks(label, CLICKS + shift, np.array([[1, 2, 3]]))
    return Annotation.now(image_id, points, GEOMETRY, "reader 1")


def absence(image_id="scan.01", label="lesion"):
    return Absence.now(image_id, label, GEOMETRY, "reader 2", "sha256:a")


@pytest.fixture
def store(tmp_path):
    return AnnotationStore(tmp_path / "labels" / "extreme_points")


def test_what_was_saved_is_read_back(store):
    saved = annotation()
    store.save(saved)
    loaded = store.load("scan.01", "lesion")

    np.testing.assert_array_equal(loaded.points.foreground_voxel, saved.points.foreground_voxel)
    np.testing.assert_array_equal(loaded.points.background_voxel, [[1, 2, 3]])
    np.testing.assert_array_equal(loaded.points.extremes_voxel, saved.points.extremes_voxel)
    assert loaded.geometry.is_close(GEOMETRY)
    assert (loaded.annotator, loaded.created) == ("reader 1", saved.created)


def test_file_states_voxel_and_lps(store):
    content = json.loads(store.save(annotation()).read_text())

    first = content["current"]["foreground"][0]
    assert content["schema_version"] == 1
    assert first["voxel"] == [10, 20, 5]
    assert first["lps_mm"] == pytest.approx([-5.0, -12.0, 32.5])


def test_new_clicks_replace_the_old_which_stay_as_history(store):
    for shift in range(3):
        store.save(annotation(shift=shift))

    assert store.load("scan.01", "lesion").points.foreground_voxel[0].tolist() == [12, 22, 7]
    assert [old["foreground"][0]["voxel"] for old in store.history("scan.01", "lesion")] == [[10, 20, 5], [11, 21, 6]]


def test_absence_is_read_back_and_is_no_clicks(store):
    saved = absence()
    content = json.loads(store.save(saved).read_text())
    loaded = store.load("scan.01", "lesion")

    assert isinstance(loaded, Absence)
    assert not hasattr(loaded, "points")
    assert loaded.geometry.is_close(GEOMETRY)
    assert (loaded.image_id, loaded.label, loaded.annotator, loaded.created, loaded.image_checksum) == (
        *("scan.01", "lesion", "reader 2"),
        *(saved.created, "sha256:a"),
    )
    assert (content["schema_version"], content["image_id"], content["label"]) == (1, "scan.01", "lesion")
    assert content["current"] == {
        "annotator": "reader 2",
        "created": saved.created,
        "image_checksum": "sha256:a",
        "absent": True,
    }


def said_at(created, annotator="reader 1", image_checksum=None, absent=False):
    if absent:
        return Absence("scan", "lesion", GEOMETRY, annotator, created, image_checksum)
    points = ExtremePoints.from_clicks("lesion", CLICKS)
    return Annotation("scan", points, GEOMETRY, annotator, created, image_checksum)


def moment(second):
    return f"2026-01-01T10:00:{second:02d}+00:00"


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ([said_at(moment(1)), said_at(moment(9))], 1),
        ([said_at(moment(1), "reader 2"), said_at(moment(9))], 9),
        ([said_at(moment(1), absent=True), said_at(moment(9))], 9),
        ([said_at(moment(1), image_checksum="a"), said_at(moment(9), image_checksum="b")], 9),
        ([said_at(moment(1), image_checksum="b"), said_at(moment(9), image_checksum="b")], 1),
        ([said_at(moment(1)), said_at(moment(9), "reader 2")], 1),
        ([said_at(moment(1), "reader 2")], None),
    ],
)
def test_first_clicks_of_an_annotator_on_a_label_of_an_image_have_a_time(store, said, first):
    for answer in said:
        store.save(answer)

    found = store.first_clicked("scan", "lesion", "reader 1")

    assert found == (None if first is None else datetime.fromisoformat(moment(first)))


def test_damaged_history_tells_no_time(store):
    path = store.save(said_at(moment(9)))
    content = json.loads(path.read_text())
    damaged = [7, None, {"foreground": []}, {"foreground": [], "annotator": "reader 1", "created": "yesterday"}]
    path.write_text(json.dumps(content | {"history": damaged}))

    assert store.first_clicked("scan", "lesion", "reader 1") == datetime.fromisoformat(moment(9))


def test_clicks_and_absence_replace_one_another_and_both_stay_as_history(store):
    for answer in (annotation(), absence(), annotation(shift=1), absence()):
        path = store.save(answer)
        assert type(store.load("scan.01", "lesion")) is type(answer)
        assert store.path("scan.01", "lesion") == path

    kept = [old.get("absent", False) for old in store.history("scan.01", "lesion")]
    assert kept == [False, True, False]
    assert store.history("scan.01", "lesion")[2]["foreground"][0]["voxel"] == [11, 21, 6]


def test_absences_are_among_the_answers_and_not_among_the_clicks(store):
    store.save(annotation())
    store.save(absence(label="cyst"))
    store.save(absence(image_id="scan"))
    store.save(annotation(image_id="scan", label="cyst"))

    assert [(a.image_id, a.label) for a in store] == [("scan.01", "lesion"), ("scan", "cyst")]
    assert [(type(a), a.image_id, a.label) for a in store.answers()] == [
        (Absence, "scan.01", "cyst"),
        (Annotation, "scan.01", "lesion"),
        (Annotation, "scan", "cyst"),
        (Absence, "scan", "lesion"),
    ]


def test_other_schema_is_refused(store):
    path = store.save(annotation())
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))

    with pytest.raises(AnnotationFileError, match="schema version 99; expected 1"):
        store.load("scan.01", "lesion")


@pytest.mark.parametrize(("image_id", "label", "wrong"), [("../scan", "x", "image id"), ("scan", "../x", "label")])
def test_files_stay_in_the_folder(store, image_id, label, wrong):
    with pytest.raises(ValueError, match=wrong):
        store.path(image_id, label)


WRITER = """
from test_store import annotation
from lib.annotations.store import AnnotationStore
from pathlib import Path
store = AnnotationStore(Path({folder!r}))
for shift in range({count}):
    store.save(annotation(shift=shift % 3))
    print(shift, flush=True)
"""


@pytest.mark.slow
def test_killed_writer_leaves_every_acknowledged_set(store):
    for delay in np.random.default_rng(0).uniform(0.02, 0.2, 5):
        if store.folder.exists():
            for path in store.folder.iterdir():
                path.unlink()
        writer = start_writer(WRITER.format(folder=str(store.folder), count=10**6))
        acknowledged = [writer.stdout.readline()]
        time.sleep(delay)
        writer.kill()
        acknowledged += writer.communicate()[0].split()

        sets = 1 + len(store.history("scan.01", "lesion"))
        assert sets >= len(acknowledged)


@pytest.mark.slow
def test_processes_that_save_at_once_lose_no_set(store):
    writers = [start_writer(WRITER.format(folder=str(store.folder), count=30)) for _ in range(3)]
    for writer in writers:
        assert len(writer.communicate()[0].split()) == 30

    assert 1 + len(store.history("scan.01", "lesion")) == 3 * 30


def test_full_disk_leaves_the_old_file(store, failing):
    path = store.save(annotation())
    before = path.read_bytes()

    with failing("fsync"), pytest.raises(OSError, match="No space"):
        store.save(annotation(shift=1))

    assert path.read_bytes() == before
    assert not list(store.folder.glob(".*.part"))


# Which image was clicked on


@pytest.mark.parametrize(
    ("clicked", "now", "same"),
    [
        ("sha256:a", "sha256:a", True),
        ("sha256:a", "sha256:b", False),
        (None, "sha256:a", True),
        ("sha256:a", None, True),
    ],
)
def test_answers_are_of_the_image_with_the_voxels_that_were_looked_at(store, clicked, now, same):
    points = ExtremePoints.from_clicks("lesion", CLICKS)
    store.save(Annotation.now("scan.01", points, GEOMETRY, "reader", clicked))
    store.save(Absence.now("scan.01", "cyst", GEOMETRY, "reader", clicked))

    assert [answer.is_of(now) for answer in store.answers()] == [same, same]
