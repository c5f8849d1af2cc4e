import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Absence, Annotation, AnnotationFileError, AnnotationStore
from lib.geometry.image_geometry import ImageGeometry
from tests.users import as_nobody

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
    store.save(saved)
    loaded = store.load("scan.01", "lesion")

    assert isinstance(loaded, Absence)
    assert not hasattr(loaded, "points")
    assert loaded.geometry.is_close(GEOMETRY)
    assert (loaded.image_id, loaded.label, loaded.annotator, loaded.created, loaded.image_checksum) == (
        *("scan.01", "lesion", "reader 2"),
        *(saved.created, "sha256:a"),
    )


def test_file_of_an_absence_says_so_and_says_who_and_when(store):
    saved = absence()
    content = json.loads(store.save(saved).read_text())

    assert content["schema_version"] == 1
    assert (content["image_id"], content["label"]) == ("scan.01", "lesion")
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

    assert [(a.image_id, a.label) for a in store] == [("scan.01", "lesion")]
    assert [(type(a), a.image_id, a.label) for a in store.answers()] == [
        (Absence, "scan.01", "cyst"),
        (Annotation, "scan.01", "lesion"),
        (Absence, "scan", "lesion"),
    ]


def test_labels_and_images_have_files_of_their_own(store):
    store.save(annotation())
    store.save(annotation(label="cyst"))
    store.save(annotation(image_id="scan"))

    found = [(a.image_id, a.points.label) for a in store]
    assert sorted(found) == [("scan", "lesion"), ("scan.01", "cyst"), ("scan.01", "lesion")]


def test_unreadable_file_is_left_in_place_and_named(store, caplog):
    store.save(annotation())
    broken = store.folder / "scan.02.lesion.json"
    broken.write_text('{"schema_version": 1, "image_')

    assert [a.image_id for a in store] == ["scan.01"]
    assert "scan.02.lesion.json is not JSON" in caplog.text
    assert broken.exists()


def test_new_clicks_over_an_unreadable_file_keep_it_aside(store):
    path = store.path("scan.01", "lesion")
    store.folder.mkdir(parents=True)
    path.write_text("half a fi")

    store.save(annotation())

    assert store.load("scan.01", "lesion").image_id == "scan.01"
    assert [kept.read_text() for kept in store.folder.glob("*.corrupt")] == ["half a fi"]


def test_other_schema_is_refused(store):
    path = store.save(annotation())
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))

    with pytest.raises(AnnotationFileError, match="schema version 99; expected 1"):
        store.load("scan.01", "lesion")


@pytest.mark.parametrize("image_id", ["../scan", "a/b", "", "..", "a\0b"])
def test_image_ids_stay_in_the_folder(store, image_id):
    with pytest.raises(ValueError, match="image id"):
        store.path(image_id, "lesion")


@pytest.mark.parametrize("label", ["../x", "a/b", "", ".", "a.b"])
def test_labels_stay_in_the_folder(store, label):
    with pytest.raises(ValueError, match="label"):
        store.path("scan", label)


WRITER = """
import sys
sys.path[:0] = {paths!r}
from test_store import annotation
from lib.annotations.store import AnnotationStore
from pathlib import Path
store = AnnotationStore(Path({folder!r}))
for shift in range(10**6):
    store.save(annotation(shift=shift % 3))
    print(shift, flush=True)
"""


@pytest.mark.slow
def test_killed_writer_leaves_every_acknowledged_set(store):
    root, here = Path(__file__).parents[2], Path(__file__).parent
    code = WRITER.format(paths=[str(root), str(here)], folder=str(store.folder))
    for delay in np.random.default_rng(0).uniform(0.02, 0.2, 5):
        if store.folder.exists():
            for path in store.folder.iterdir():
                path.unlink()
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        acknowledged = [writer.stdout.readline()]
        time.sleep(delay)
        writer.kill()
        acknowledged += writer.communicate()[0].split()

        sets = 1 + len(store.history("scan.01", "lesion"))
        assert sets >= len(acknowledged)


@pytest.mark.slow
def test_processes_that_save_at_once_lose_no_set(store):
    root, here = Path(__file__).parents[2], Path(__file__).parent
    code = WRITER.format(paths=[str(root), str(here)], folder=str(store.folder)).replace("10**6", "30")
    writers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) for _ in range(3)]
    for writer in writers:
        assert writer.wait() == 0

    assert 1 + len(store.history("scan.01", "lesion")) == 3 * 30


def test_full_disk_leaves_the_old_file(store, monkeypatch):
    path = store.save(annotation())
    before = path.read_bytes()

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        store.save(annotation(shift=1))

    assert path.read_bytes() == before
    assert not list(store.folder.glob(".*.part"))


# Damaged files, of which nobody knows how they came about


def content_of(**changes):
    """A good annotation file of `scan.01` and `lesion`, but for the changes; None takes a key away."""
    clicks = [{"voxel": click, "lps_mm": [0.0, 0.0, 0.0]} for click in CLICKS.tolist()]
    current = {
        "annotator": "reader 1",
        "created": "2024-05-01T10:00:00.000+00:00",
        "image_checksum": None,
        "foreground": clicks,
        "background": [],
    }
    geometry = {"shape": [40, 50, 12], "affine_ras": np.diag([0.5, 0.6, 6.5, 1.0]).tolist()}
    content = {
        "schema_version": 1,
        "image_id": "scan.01",
        "label": "lesion",
        "geometry": geometry,
        "current": current,
        "history": [],
    }
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[key]
        else:
            place[key] = value
    return json.dumps(content).encode()


def voxels(*extra):
    return [{"voxel": click} for click in [*CLICKS.tolist(), *extra]]


UNREADABLE = {
    "empty": b"",
    "half": content_of()[:300],
    "no JSON": b"half a fi",
    "not UTF-8": content_of().replace(b"reader 1", b"J\xfcrgen"),
    "900 nested lists": b"[" * 900 + b"]" * 900,
    "100,000 nested lists": b"[" * 100_000,
    "a list": b"[1, 2]",
    "null": b"null",
    "a number": b"1",
    "other schema": content_of(schema_version=2),
    "no schema": content_of(schema_version=None),
    "no current clicks": content_of(current=None),
    "clicks that are a list": content_of(current=[1]),
    "other label inside": content_of(label="cyst"),
    "other image inside": content_of(image_id="scan.02"),
    "label that is a number": content_of(label=7),
    "image that is a list": content_of(image_id=["scan.01"]),
    "no label": content_of(label=None),
    "no foreground": content_of(current__foreground=None),
    "foreground that is a number": content_of(current__foreground=7),
    "five clicks": content_of(current__foreground=voxels()[:5]),
    "click of two numbers": content_of(current__foreground=voxels([1, 2])),
    "click of text": content_of(current__foreground=voxels(["a", 1, 2])),
    "click of lists": content_of(current__foreground=voxels([[1], [2], [3]])),
    "NaN": content_of(current__foreground=voxels([float("nan"), 1, 2])),
    "infinite": content_of(current__foreground=voxels([float("inf"), 1, 2])),
    "huge": content_of(current__foreground=voxels([10**30, 1, 2])),
    "huge float": content_of(current__foreground=voxels([1e300, 1, 2])),
    "outside": content_of(current__foreground=voxels([40, 1, 2])),
    "negative": content_of(current__background=[{"voxel": [-1, 1, 2]}]),
    "no creation": content_of(current__created=None),
    "creation that is nonsense": content_of(current__created="yesterday"),
    "creation that is a number": content_of(current__created=1714550400),
    "no annotator": content_of(current__annotator=None),
    "no geometry": content_of(geometry=None),
    "no affine": content_of(geometry__affine_ras=None),
    "affine of text": content_of(geometry__affine_ras="none"),
    "affine of NaN": content_of(geometry__affine_ras=np.full((4, 4), np.nan).tolist()),
    "affine of three rows": content_of(geometry__affine_ras=np.eye(4)[:3].tolist()),
    "shape of two": content_of(geometry__shape=[40, 50]),
    "shape of NaN": content_of(geometry__shape=[40, 50, float("nan")]),
    "absent, with clicks": content_of(current__absent=True),
    "absent, with background clicks": content_of(current__absent=True, current__foreground=None),
    "not absent": content_of(current__absent=False, current__foreground=None, current__background=None),
    "absent, as a text": content_of(current__absent="yes", current__foreground=None, current__background=None),
    "absent without a creation": content_of(
        current__absent=True, current__foreground=None, current__background=None, current__created=None
    ),
}


@pytest.fixture
def damaged(store):
    """Puts content where the clicks on the lesion in `scan.01` lie, beside good ones."""
    store.save(annotation(image_id="scan"))

    def put(content):
        path = store.path("scan.01", "lesion")
        path.write_bytes(content)
        return path

    return put


def test_content_that_these_tests_damage_is_good(store, damaged):
    damaged(content_of())

    assert store.load("scan.01", "lesion").annotator == "reader 1"


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_damaged_file_is_named_and_left_out_and_left_where_it_is(store, damaged, content, caplog):
    path = damaged(content)

    assert [a.image_id for a in store] == ["scan"]
    assert "scan.01.lesion.json" in caplog.text
    assert set(store.paths_by_image()) == {"scan", "scan.01"}
    assert store.paths_of("scan.01") == [path]
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_new_clicks_take_the_place_of_a_damaged_file_which_is_not_lost(store, damaged, content):
    path = damaged(content)

    store.save(annotation())

    assert store.load("scan.01", "lesion").image_id == "scan.01"
    kept = [kept.read_bytes() for kept in store.folder.glob("*.corrupt")]
    if not kept:  # clicks that can be told from the rest of the file get into its history
        assert repr(store.history("scan.01", "lesion")[-1]) == repr(json.loads(content)["current"])
    else:
        assert kept == [content]
    assert store.path("scan.01", "lesion") == path


@pytest.mark.parametrize("history", [None, 7, "old", {"a": 1}, [1, None]])
def test_file_without_a_usable_history_is_read_and_its_clicks_get_into_the_history(store, damaged, history):
    damaged(content_of(history=history))

    assert store.load("scan.01", "lesion").annotator == "reader 1"
    store.save(annotation())
    assert store.history("scan.01", "lesion")[-1]["annotator"] == "reader 1"


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("2024-05-01T10:00:00", "2024-05-01T10:00:00.000+00:00"),
        ("2024-05-01", "2024-05-01T00:00:00.000+00:00"),
        ("2024-05-01T10:00:00+02:00", "2024-05-01T10:00:00+02:00"),
        ("2024-05-01T10:00:00Z", "2024-05-01T10:00:00Z"),
    ],
)
def test_moment_without_a_time_zone_counts_as_utc(store, damaged, stored, read):
    damaged(content_of(current__created=stored))

    created = store.load("scan.01", "lesion").created

    assert created == read
    assert datetime.fromisoformat(created).tzinfo is not None


@pytest.mark.parametrize("annotator", ["\ud800", "J\udcfcrgen", 7, ["a"]])
def test_annotator_can_be_sent_on_whatever_an_earlier_version_accepted(store, damaged, annotator):
    damaged(content_of(current__annotator=annotator))

    assert json.dumps(store.load("scan.01", "lesion").annotator, ensure_ascii=False).encode()


@pytest.mark.parametrize(("image_id", "label"), [("scan", "a.b"), ("a\nb", "lesion"), ("scan", "_x"), ("scan", " x")])
def test_file_of_a_name_that_no_request_could_have_is_left_out(store, damaged, image_id, label):
    damaged(content_of())
    path = store.folder / f"{image_id}.{label}.json"
    path.write_bytes(content_of(image_id=image_id, label=label))

    assert [store.path(a.image_id, a.points.label).name for a in store] == ["scan.01.lesion.json", "scan.lesion.json"]


def test_folder_with_the_name_of_an_annotation_is_set_aside_by_new_clicks(store, damaged):
    damaged(content_of())
    folder = store.folder / "scan.02.lesion.json"
    (folder / "inside").mkdir(parents=True)

    assert {a.image_id for a in store} == {"scan", "scan.01"}
    store.save(annotation(image_id="scan.02"))

    assert store.load("scan.02", "lesion").annotator == "reader 1"
    assert [kept.name for kept in store.folder.glob("*.corrupt/*")] == ["inside"]


def test_file_that_may_not_be_read_is_left_out_and_set_aside_by_new_clicks(store, damaged):
    damaged(content_of())
    path = store.path("scan.01", "lesion")
    path.chmod(0)

    def look_and_save():
        assert {a.image_id for a in store} == {"scan"}
        assert set(store.paths_by_image()) == {"scan", "scan.01"}
        store.save(annotation())
        assert store.load("scan.01", "lesion").annotator == "reader 1"

    as_nobody(look_and_save, store.folder)
    assert [kept.read_bytes() for kept in store.folder.glob("*.corrupt")] == [content_of()]


@pytest.mark.parametrize("name", [".scan.lesion.json", "._scan.lesion.json", "scan.lesion.json.part", "notes.txt"])
def test_other_files_of_the_folder_are_no_annotations(store, damaged, name):
    damaged(content_of())
    (store.folder / name).write_bytes(content_of())

    assert set(store.paths_by_image()) == {"scan", "scan.01"}


def test_name_that_is_not_utf_8_hurts_nobody(store, damaged):
    damaged(content_of())
    (store.folder / os.fsdecode(b"M\xfcller.lesion.json")).write_bytes(content_of(image_id=os.fsdecode(b"M\xfcller")))

    assert {a.image_id for a in store} == {"scan", "scan.01"}


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
