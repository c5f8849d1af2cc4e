"""Annotation files with damaged content, which are reported and kept."""

import json
import os
from datetime import datetime

import numpy as np
import pytest

from lib.annotations.store import AnnotationFileError, AnnotationStore
from tests.annotations.test_store import CLICKS, annotation
from tests.users import as_nobody


@pytest.fixture
def store(tmp_path):
    return AnnotationStore(tmp_path / "labels" / "extreme_points")


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
    with pytest.raises(AnnotationFileError, match=r"scan\.01\.lesion\.json"):
        store.load("scan.01", "lesion")


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
