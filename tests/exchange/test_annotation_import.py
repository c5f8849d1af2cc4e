"""Records into the store: each checked as a click request is, all of them or none."""

import os

import numpy as np
import pytest

from lib.annotations.store import Absence, AnnotationStore
from lib.exchange.annotation_import import plan_import
from lib.exchange.click_records import ClickRecord, ImportRefusedError
from lib.exchange.study_images import StudyImages
from lib.geometry.image_geometry import ImageGeometry
from lib.server.project import Project
from tests.exchange.studies import (
    CLICKS,
    GEOMETRIES,
    SHAPE,
    all_files,
    clicks_lps_mm,
    stored,
    stored_clicks,
    write_studies,
)
from tests.full_disk import full_after

LABELS = ("lesion", "cyst")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return StudyImages(write_studies(tmp_path_factory.mktemp("studies")))


@pytest.fixture
def store(tmp_path):
    return AnnotationStore(Project(tmp_path).clicks)


def record(image="oblique", label="lesion", points=CLICKS, **more):
    return ClickRecord("points.csv, lines 2 to 7", image, label, tuple(map(tuple, points)), **more)


def carry_out(records, images, store, **options):
    plan = plan_import(records, images, LABELS, store, "imported", **options)
    return [(a.image_id, a.points.label) for a in plan.carry_out(store)]


@pytest.mark.parametrize("image", GEOMETRIES)
def test_clicks_lie_where_itk_says(images, store, tmp_path, image):
    carry_out([record(image)], images, store)

    voxel, lps_mm = stored_clicks(tmp_path, image)
    assert voxel == CLICKS
    np.testing.assert_allclose(lps_mm, clicks_lps_mm(images.paths[image]), atol=1e-3)


@pytest.mark.parametrize("image", GEOMETRIES)
@pytest.mark.parametrize(("coordinates", "signs"), [("lps", [1, 1, 1]), ("ras", [-1, -1, 1])])
def test_millimetres_reach_the_voxels_that_lie_there(images, store, tmp_path, image, coordinates, signs):
    points_mm = clicks_lps_mm(images.paths[image]) * signs

    carry_out([record(image, points=points_mm.tolist(), coordinates=coordinates)], images, store)

    assert stored_clicks(tmp_path, image)[0] == CLICKS


def test_image_may_be_named_by_its_file_and_background_clicks_are_stored(images, store, tmp_path):
    assert carry_out([record("flipped.nii.gz", background=((20, 2, 2),))], images, store) == [("flipped", "lesion")]

    assert [click["voxel"] for click in stored(tmp_path, "flipped")["current"]["background"]] == [[20, 2, 2]]


def other_grid():
    return ImageGeometry(SHAPE, GEOMETRIES["straight"])


REFUSALS = {
    "no such image": (record("study_99"), "there is no such image in "),
    "image in another folder": (record("../oblique"), "there is no such image in "),
    "no such label": (record(label="tumour"), "the app's labels are lesion, cyst; name them with --labels"),
    "label that is a request's own word": (record(label="foreground"), "the app's labels are lesion, cyst"),
    "five clicks": (record(points=CLICKS[:5]), "5 clicks; expected at least six"),
    "no extent": (record(points=[[n, n, 4] for n in range(6)]), "all clicks have the same k index (4)"),
    "outside": (record(points=[*CLICKS, [24, 0, 0]]), "the click [24, 0, 0] is outside the image"),
    "not finite": (record(points=[*CLICKS, [float("nan"), 0, 0]]), "the click [nan, 0, 0] is not three finite numbers"),
    "millimetres as voxels": (record(points=[[-53.1, 12, 3], *CLICKS]), "is outside the image"),
    "foreground and background": (record(background=(tuple(CLICKS[0]),)), "is clicked as foreground and as background"),
    "another grid": (record(grid=other_grid()), "the file is not on the grid of the image oblique.nii.gz"),
}


@pytest.mark.parametrize(("wrong", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_one_wrong_record_stops_all_of_them(images, store, tmp_path, wrong, sentence):
    with pytest.raises(ImportRefusedError) as error:
        carry_out([record("straight"), wrong, record("flipped")], images, store)

    (told,) = error.value.sentences
    assert told.startswith(f"points.csv, lines 2 to 7: image {wrong.image!r}, label {wrong.label!r}: ")
    assert sentence in told
    assert all_files(tmp_path) == {}


def test_every_wrong_record_is_named(images, store):
    wrong = [record("study_98"), record(), record(label="tumour")]

    with pytest.raises(ImportRefusedError) as error:
        carry_out(wrong, images, store)

    assert len(error.value.sentences) == 2


def test_two_records_of_one_structure_are_refused(images, store):
    with pytest.raises(ImportRefusedError, match="label 'lesion': there are clicks for it in an earlier entry too"):
        carry_out([record(), record("oblique.nii.gz")], images, store)


MOVED = [[i + 1, j, k] for i, j, k in CLICKS]


def test_clicks_that_exist_are_kept(images, store, tmp_path):
    carry_out([record()], images, store)
    before = all_files(tmp_path)

    plan = plan_import([record(points=MOVED), record(label="cyst")], images, LABELS, store, "imported")

    assert [a.points.label for a in plan.kept] == ["lesion"]
    assert [a.points.label for a in plan.new] == ["cyst"]
    assert all_files(tmp_path) == before
    list(plan.carry_out(store))
    assert before.items() < all_files(tmp_path).items()


def test_label_that_is_said_to_be_absent_is_answered_too(images, store):
    store.save(Absence.now("oblique", "lesion", ImageGeometry(SHAPE, GEOMETRIES["oblique"]), "reader"))

    assert carry_out([record()], images, store) == []
    assert isinstance(store.load("oblique", "lesion"), Absence)

    assert carry_out([record()], images, store, overwrite=True) == [("oblique", "lesion")]
    assert store.load("oblique", "lesion").points.foreground_voxel.tolist() == CLICKS


def test_clicks_that_are_replaced_stay_as_history(images, store, tmp_path):
    carry_out([record()], images, store)
    carry_out([record(points=MOVED)], images, store, overwrite=True)

    assert stored_clicks(tmp_path, "oblique")[0] == MOVED
    (earlier,) = stored(tmp_path, "oblique")["history"]
    assert [click["voxel"] for click in earlier["foreground"]] == CLICKS


def test_import_goes_on_after_a_full_disk(images, store, tmp_path, monkeypatch):
    records = [record("straight"), record("flipped")]
    monkeypatch.setattr(os, "fsync", full_after(2))
    with pytest.raises(OSError, match="No space"):
        carry_out(records, images, store)
    monkeypatch.undo()

    assert [path.name for path in tmp_path.rglob("*.json")] == ["straight.lesion.json"]
    assert not list(tmp_path.rglob(".*.part"))
    assert carry_out(records, images, store) == [("flipped", "lesion")]


@pytest.mark.parametrize(("content", "sentence"), [(None, "does not exist"), ("readme.txt", "holds no .nii.gz")])
def test_folder_without_images_is_refused(tmp_path, content, sentence):
    folder = tmp_path / "studies"
    if content:
        folder.mkdir()
        (folder / content).write_text("no image")

    with pytest.raises(ValueError, match=sentence):
        StudyImages(folder)
