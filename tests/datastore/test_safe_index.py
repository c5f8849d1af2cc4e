"""The index of a studies folder: whole after a kill, true under many clients, closed to names with folders in them."""

import json
import multiprocessing
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.geometry import ImageGeometry
from lib.annotations.store import Annotation, AnnotationStore
from lib.datastore.safe_index import ANNOTATION_TAG, SafeIndex

CLICKS = np.array([[0, 4, 4], [8, 4, 4], [4, 0, 4], [4, 8, 4], [4, 4, 0], [4, 4, 8]])
GEOMETRY = ImageGeometry((9, 9, 9), np.eye(4))
NAMES = [f"scan_{n}" for n in range(8)]


def write_image(path):
    nib.save(nib.Nifti1Image(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY.affine_ras), path)
    return path


def opened(folder, **settings):
    return SafeIndex(str(folder), extensions=["*.nii.gz", "*.nii", "*.nrrd"], **settings)


def annotate(index, image_id, label="lesion"):
    """What a click request does: the file first, then the list."""
    points = ExtremePoints.from_clicks(label, CLICKS)
    path = AnnotationStore(index.annotation_folder).save(Annotation.now(image_id, points, GEOMETRY, "reader"))
    index.list_annotation(image_id, path.name, {"annotator": "reader"})
    return path


def listed(index, image_id):
    return index.json()["objects"][image_id]["labels"].get(ANNOTATION_TAG)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in NAMES:
        write_image(folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def index(folder):
    return opened(folder)


# What counts as annotated


def test_nothing_is_annotated_at_first(index):
    assert index.get_labeled_images() == []
    assert set(index.get_unlabeled_images()) == set(NAMES)


def test_clicks_make_an_image_annotated(index):
    annotate(index, NAMES[0])

    assert index.get_labeled_images() == [NAMES[0]]
    assert NAMES[0] not in index.get_unlabeled_images()
    assert index.status()["completed"] == 1


def test_final_mask_makes_an_image_annotated(index, tmp_path):
    index.save_label(NAMES[1], str(write_image(tmp_path / "mask.nii.gz")), "final", {})

    assert index.get_labeled_images() == [NAMES[1]]


def test_mask_that_is_not_final_does_not(index, tmp_path):
    index.save_label(NAMES[1], str(write_image(tmp_path / "mask.nii.gz")), "original", {})

    assert index.get_labeled_images() == []
    assert NAMES[1] in index.get_unlabeled_images()


def test_every_image_is_either_annotated_or_not(index, tmp_path):
    annotate(index, NAMES[0])
    index.save_label(NAMES[1], str(write_image(tmp_path / "mask.nii.gz")), "final", {})

    assert sorted(index.get_labeled_images() + index.get_unlabeled_images()) == NAMES


def test_annotation_is_listed_with_its_file_and_annotator(index):
    path = annotate(index, NAMES[0])

    assert listed(index, NAMES[0])["info"] == {"annotator": "reader", "name": path.name}
    assert Path(index.get_label_uri(NAMES[0], ANNOTATION_TAG)) == path.resolve()


def test_annotations_are_still_listed_after_a_restart(index, folder):
    annotate(index, NAMES[0])

    assert opened(folder).get_labeled_images() == [NAMES[0]]


def imported(folder, image_id, label="lesion"):
    """What another process does: the file alone."""
    points = ExtremePoints.from_clicks(label, CLICKS)
    store = AnnotationStore(folder / "labels" / ANNOTATION_TAG)
    return store.save(Annotation.now(image_id, points, GEOMETRY, "imported"))


@pytest.mark.parametrize("ask", [SafeIndex.json, SafeIndex.status])
def test_clicks_that_another_process_stored_are_listed_when_asked(index, folder, ask):
    path = imported(folder, NAMES[0])

    ask(index)

    assert listed(index, NAMES[0])["info"]["name"] == path.name
    assert Path(index.get_label_uri(NAMES[0], ANNOTATION_TAG)) == path.resolve()
    assert index.status() == {"total": len(NAMES), "completed": 1, "label_tags": {ANNOTATION_TAG: 1}}


def test_clicks_that_another_process_stored_are_listed_at_start(folder):
    path = imported(folder, NAMES[0])

    index = opened(folder)

    assert Path(index.get_label_uri(NAMES[0], ANNOTATION_TAG)) == path.resolve()


def test_listing_what_is_on_disk_keeps_what_is_known_of_it(index, folder):
    annotate(index, NAMES[0])
    imported(folder, NAMES[0], "cyst")

    assert listed(index, NAMES[0])["info"]["annotator"] == "reader"


def test_clicks_that_another_process_stored_for_no_image_are_not_listed(index, folder):
    imported(folder, "gone")

    assert index.status()["label_tags"] == {}
    assert "gone" not in index.json()["objects"]


def test_clicks_removed_from_the_disk_no_longer_count(index):
    annotate(index, NAMES[0]).unlink()
    index.refresh()

    assert index.get_labeled_images() == []


def test_clicks_count_again_when_their_image_is_back(index, folder, tmp_path):
    annotate(index, NAMES[0])
    shutil.move(folder / f"{NAMES[0]}.nii.gz", tmp_path / "away.nii.gz")
    index.refresh()
    shutil.move(tmp_path / "away.nii.gz", folder / f"{NAMES[0]}.nii.gz")
    index.refresh()

    assert index.get_labeled_images() == [NAMES[0]]


def test_index_that_was_lost_is_made_anew_from_what_is_on_disk(index, folder, tmp_path):
    annotate(index, NAMES[0])
    index.save_label(NAMES[1], str(write_image(tmp_path / "mask.nii.gz")), "final", {})
    (folder / "datastore_v2.json").unlink()

    assert sorted(opened(folder).get_labeled_images()) == NAMES[:2]


# Images that go


def test_clicks_on_an_image_that_just_went_stay_on_disk(index, folder):
    (folder / f"{NAMES[0]}.nii.gz").unlink()
    index.refresh()

    path = annotate(index, NAMES[0])

    assert path.exists()
    assert NAMES[0] not in index.list_images()


def test_removed_image_has_no_address(index, folder):
    (folder / f"{NAMES[0]}.nii.gz").unlink()
    index.refresh()

    assert index.get_image_uri(NAMES[0]) == ""


# Names


@pytest.mark.parametrize("tag", ["../../escaped", "a/b", "..", ".", "", "final\0", "a b", "x" * 65, ANNOTATION_TAG])
def test_tag_that_could_leave_its_folder_or_hide_clicks_is_refused(index, folder, tmp_path, tag):
    before = sorted(folder.rglob("*"))
    with pytest.raises(HTTPException) as error:
        index.save_label(NAMES[0], str(write_image(tmp_path / "mask.nii.gz")), tag, {})

    assert error.value.status_code == 422
    assert repr(tag) in error.value.detail
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("image_id", ["scan_99", "../scan_0", "", "../../etc/passwd"])
def test_mask_for_an_image_that_is_not_there_is_refused(index, tmp_path, image_id):
    with pytest.raises(HTTPException) as error:
        index.save_label(image_id, str(write_image(tmp_path / "mask.nii.gz")), "final", {})

    assert error.value.status_code == 404
    assert repr(image_id) in error.value.detail


@pytest.mark.parametrize("image_id", ["../escaped", "a/b", "/escaped", "a/"])
def test_image_id_with_a_folder_in_it_is_refused(index, tmp_path, image_id):
    with pytest.raises(HTTPException) as error:
        index.add_image(image_id, str(write_image(tmp_path / "new.nii.gz")), {})

    assert error.value.status_code == 422
    assert repr(image_id) in error.value.detail
    assert not (tmp_path / "escaped.nii.gz").exists()


@pytest.mark.parametrize("image_id", ["new", "scan.01", "Müller 1"])
def test_image_with_a_plain_name_is_added(index, tmp_path, image_id):
    index.add_image(image_id, str(write_image(tmp_path / "new.nii.gz")), {})

    assert image_id in index.list_images()
    assert Path(index.get_image_uri(image_id)).exists()


def test_image_added_without_a_name_gets_that_of_its_file(index, tmp_path):
    assert index.add_image("", str(write_image(tmp_path / "new.nii.gz")), {}) == "new"


# Many clients


def repeat_until(done, action):
    while not done.is_set():
        action()


def test_many_clients_at_once_lose_nothing(index, folder, tmp_path):
    """Clicks, masks and images arrive while the folder is read anew."""
    mask, image = write_image(tmp_path / "mask.nii.gz"), write_image(tmp_path / "new.nii.gz")
    jobs = [
        *[
            lambda name=name, label=label: annotate(index, name, label)
            for name in NAMES
            for label in ("lesion", "cyst")
        ],
        *[lambda name=name: index.save_label(name, str(mask), "final", {}) for name in NAMES],
        *[lambda n=n: index.add_image(f"new_{n}", str(image), {}) for n in range(8)],
    ]
    done = threading.Event()
    reader = threading.Thread(target=repeat_until, args=(done, index.refresh))
    reader.start()
    with ThreadPoolExecutor(10) as clients:
        list(clients.map(lambda job: job(), jobs))
    done.set()
    reader.join()

    for found in (index, opened(folder)):
        assert set(found.list_images()) == {*NAMES, *(f"new_{n}" for n in range(8))}
        assert set(found.get_labeled_images()) == set(NAMES)
        assert all(listed(found, name) for name in NAMES)


QUESTIONS = [
    pytest.param(lambda index: set(index.list_images()) == set(NAMES), id="images"),
    pytest.param(
        lambda index: all(index.get_image_uri(name).endswith(f"studies/{name}.nii.gz") for name in NAMES),
        id="addresses",
    ),
    pytest.param(lambda index: set(index.get_labeled_images()) == set(NAMES), id="annotated"),
    pytest.param(lambda index: index.get_unlabeled_images() == [], id="not annotated"),
    pytest.param(lambda index: index.status()["label_tags"] == {ANNOTATION_TAG: len(NAMES)}, id="status"),
    pytest.param(lambda index: set(index.json()["objects"]) == set(NAMES), id="everything"),
    pytest.param(
        lambda index: all(index.get_label_by_image_id(name, ANNOTATION_TAG) for name in NAMES),
        id="labels",
    ),
    pytest.param(
        lambda index: all(index.get_label_uri(name, ANNOTATION_TAG) for name in NAMES),
        id="addresses of labels",
    ),
    pytest.param(lambda index: all(index.get_image_info(name) for name in NAMES), id="about an image"),
]


class SlowToFill(dict):
    """MONAI Label empties its list and fills it again; this one stays empty for as long as a question takes."""

    def __init__(self, items):
        super().__init__(items)
        self.emptied = threading.Event()

    def clear(self):
        super().clear()
        self.emptied.set()
        time.sleep(0.1)


@pytest.mark.parametrize("is_whole", QUESTIONS)
def test_nobody_sees_the_index_empty_while_the_folder_is_read_anew(index, is_whole):
    for name in NAMES:
        annotate(index, name)
    images = index._datastore.objects = SlowToFill(index._datastore.objects)
    reader = threading.Thread(target=index.refresh)
    reader.start()
    assert images.emptied.wait(10)

    whole = is_whole(index)
    reader.join()
    assert whole


def test_index_on_disk_is_whole_at_every_moment(index, folder):
    done, contents = threading.Event(), []
    path = folder / "datastore_v2.json"
    reader = threading.Thread(target=repeat_until, args=(done, lambda: contents.append(path.read_bytes())))
    reader.start()
    for name in NAMES * 3:
        annotate(index, name)
    done.set()
    reader.join()

    assert all(set(json.loads(content)["objects"]) == set(NAMES) for content in set(contents))


def write_until_killed(folder, ready):
    index = opened(folder)
    ready.set()
    while True:
        for name in NAMES:
            annotate(index, name)


def test_killed_writer_leaves_a_readable_index(folder):
    context = multiprocessing.get_context("fork")
    for delay in np.random.default_rng(0).uniform(0, 0.05, 8):
        ready = context.Event()
        writer = context.Process(target=write_until_killed, args=(folder, ready))
        writer.start()
        ready.wait()
        time.sleep(delay)
        writer.kill()
        writer.join()

        assert set(opened(folder).list_images()) == set(NAMES)


def test_full_disk_leaves_the_old_index(index, folder, monkeypatch):
    annotate(index, NAMES[0])
    before = (folder / "datastore_v2.json").read_bytes()

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        index.list_annotation(NAMES[1], f"{NAMES[1]}.lesion.json", {})

    assert (folder / "datastore_v2.json").read_bytes() == before
