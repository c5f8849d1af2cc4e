import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.geometry import ImageGeometry
from lib.annotations.store import Annotation, AnnotationFileError, AnnotationStore

GEOMETRY = ImageGeometry((40, 50, 12), np.diag([0.5, 0.6, 6.5, 1.0]))
CLICKS = np.array([[10, 20, 5], [30, 21, 5], [20, 11, 5], [20, 31, 5], [20, 20, 2], [20, 20, 9]])


def annotation(image_id="scan.01", label="lesion", shift=0):
    points = ExtremePoints.from_clicks(label, CLICKS + shift, np.array([[1, 2, 3]]))
    return Annotation.now(image_id, points, GEOMETRY, "reader 1")


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
