"""The report of a project: one page with all that is known, and nothing in it that a name could break."""

import base64
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.masks import MaskRecord, MaskStore
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Absence, Annotation, AnnotationStore
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.inference.prediction import BrokenModelError, predict_probability
from lib.networks.checkpoint import NetworkSpec, TrainedModel, save_checkpoint
from lib.report import annotated_image
from lib.report.project import read_project
from lib.server.audit import AuditLog
from lib.server.project import Project, open_project
from lib.training.record import TrainingRecord, TrainingRun
from scripts.report import main

SCRIPT = Path(__file__).parents[2] / "scripts" / "report.sh"
SHAPE, AFFINE = (32, 30, 28), np.diag([1.0, 1.0, 1.5, 1.0])
BALL = sum((axis - 14) ** 2 for axis in np.ogrid[tuple(map(slice, SHAPE))]) <= 36
HOSTILE = "<script>alert(1)</script>"


class Text(HTMLParser):
    """What a reader sees, and what the page would load."""

    def __init__(self, page):
        super().__init__()
        self.words, self.tags, self.sources = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words += data.split()


def add_image(studies, name, annotator=None, clicked=True):
    studies.mkdir(exist_ok=True)
    image = np.random.default_rng(0).normal(0, 0.05, SHAPE) + BALL
    nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), studies / f"{name}.nii.gz")
    if clicked:
        points = ExtremePoints.from_clicks("lesion", simulated_extreme_points(BALL), np.array([[2, 2, 2]]))
        geometry = ImageGeometry(SHAPE, AFFINE)
        store = AnnotationStore(studies / "labels" / "extreme_points")
        store.save(Annotation.now(name, points, geometry, annotator or "reader 1"))


def add_model(model_dir, score=0.72):
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.5), (16, 16, 16), levels=2, base_channels=2)
    save_checkpoint(model_dir / "inextremis.pt", TrainedModel(spec, spec.build(), 2, score))
    record = TrainingRecord()
    for number, (version, score) in enumerate([(1, 0.61), (None, 0.43), (2, 0.72)], start=1):
        times = (f"2026-11-0{number}T10:00:00+00:00", f"2026-11-0{number}T10:02:00+00:00")
        record = record.with_run(TrainingRun(*times, version, 240 * number, 8, (2, "held-out"), score, 0.6, 0.5))
    record.save(model_dir / "inextremis" / "record.json")


@pytest.fixture
def project(tmp_path):
    studies, model_dir = tmp_path / "my studies", tmp_path / "model"
    studies.mkdir()
    add_image(studies, "one")
    add_image(studies, "two", annotator=HOSTILE)
    add_image(studies, "open", clicked=False)
    add_model(model_dir)
    return studies, model_dir


def report(studies, model_dir, *options):
    out = studies.parent / "report.html"
    status = main([str(studies), "--model-dir", str(model_dir), "--out", str(out), *options])
    return status, out.read_text() if out.exists() else ""


def pictures(page):
    return re.findall(r'src="data:image/png;base64,([^"]+)"', page)


@pytest.fixture
def asked(monkeypatch):
    """The images that the network was asked about."""
    volumes = []

    def predict(model, volume):
        volumes.append(volume)
        return predict_probability(model, volume)

    monkeypatch.setattr(annotated_image, "predict_probability", predict)
    return volumes


def test_page_tells_what_is_annotated_by_whom_and_how_the_model_learnt(project):
    status, page = report(*project)

    words = " ".join(Text(page).words)
    assert status == 0
    assert "2 of 3 images are annotated (lesion); version 2 of the model is published" in words
    assert "one lesion 6 on it, 1 beside it reader 1" in words
    for figures in ("1 8 240 0.61 0.60 2 held-out", "not published 8 480 0.43", "2 8 720 0.72"):
        assert figures in words


def test_page_shows_the_newest_of_the_audit_log(project):
    studies, model_dir = project
    log = AuditLog(Project(studies).audit)
    log.write("clicks", "anna", {"address": "10.1.2.3", "program": HOSTILE}, {"image": "one", "labels": ["lesion"]})
    log.write("training", HOSTILE, {"address": "10.1.2.4", "program": ""}, {})

    status, page = report(studies, model_dir)

    words = " ".join(Text(page).words)
    assert status == 0
    assert f"anna clicks image: one; labels: lesion 10.1.2.3 {HOSTILE}" in words
    assert words.index("training") < words.index("anna clicks")
    assert "script" not in Text(page).tags


def test_images_count_as_annotated_when_all_labels_are_answered(project):
    studies, model_dir = project
    geometry = ImageGeometry(SHAPE, AFFINE)
    place = Project(studies)
    AnnotationStore(place.clicks).save(Absence.now("two", "cyst", geometry, "reader 2"))
    cyst = Volume((2 * BALL).astype(np.uint8), geometry)
    MaskStore(place.masks(), ("lesion", "cyst"), place.mapped_masks).save("open", cyst, MaskRecord({"cyst": 2}))

    _, page = report(studies, model_dir, "--labels", "lesion,cyst")

    words = " ".join(Text(page).words)
    assert "1 of 3 images are annotated (lesion, cyst)" in words
    assert "two cyst not in this image reader 2" in words
    assert "one cyst not answered yet" in words
    assert "open lesion not answered yet" in words
    assert "open cyst not" not in words and "two lesion not" not in words
    assert len(pictures(page)) == 3  # the learning curve and the clicks on two lesions


def test_labels_are_those_that_the_project_began_with(project):
    open_project(Project(project[0]), ("lesion", "cyst"))

    _, page = report(*project)

    assert "0 of 3 images are annotated (lesion, cyst)" in " ".join(Text(page).words)


def test_page_holds_its_pictures_and_loads_nothing(project):
    _, page = report(*project)

    assert len(pictures(page)) == 3  # the learning curve and two masks
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures(page))
    assert all(source.startswith("data:") for source in Text(page).sources)


def test_names_are_text_and_nothing_else(project):
    _, page = report(*project)

    assert HOSTILE in " ".join(Text(page).words)
    assert "script" not in Text(page).tags


def test_only_so_many_masks_are_made_as_asked_for(project, asked):
    _, page = report(*project, "--max-pictures", "1")

    assert len(pictures(page)) == 2  # the learning curve and a mask
    assert len(asked) == 1


def test_newest_is_first(project):
    """By clicks and absences, in whichever time zone they are stored; an image with a final mask only comes last."""
    studies, model_dir = project
    place, geometry = Project(studies), ImageGeometry(SHAPE, AFFINE)
    mask = Volume(BALL.astype(np.uint8), geometry)
    MaskStore(place.masks(), ("lesion",), place.mapped_masks).save("open", mask, MaskRecord({"lesion": 1}))
    store = AnnotationStore(place.clicks)
    for name, created in {"one": "2026-11-02T08:00+02:00", "two": "2026-11-02T07:00+00:00"}.items():
        store.save(replace(store.load(name, "lesion"), created=created))

    def order():
        return [image.image_id for image in read_project(studies, place, model_dir).images]

    assert order() == ["two", "one", "open"]
    store.save(replace(Absence.now("one", "cyst", geometry, "reader 1"), created="2026-11-02T07:30+00:00"))
    assert order() == ["one", "two", "open"]


def test_network_without_trust_is_not_asked(project, asked):
    add_model(project[1], score=0.5)

    _, page = report(*project)

    assert len(pictures(page)) == 3  # the learning curve and two masks
    assert not asked


def test_network_is_asked_once_about_each_image_with_clicks(project, asked):
    studies, _ = project
    store = AnnotationStore(studies / "labels" / "extreme_points")
    of_cyst = ExtremePoints.from_clicks("cyst", simulated_extreme_points(BALL))
    store.save(Annotation.now("one", of_cyst, ImageGeometry(SHAPE, AFFINE), "reader 1"))

    _, page = report(*project)

    assert len(pictures(page)) == 4  # the learning curve and three masks
    assert len(asked) == 2


def test_masks_are_made_of_the_clicks_alone_where_the_network_is_broken(project, monkeypatch):
    def fail(model, volume):
        raise BrokenModelError("Version 2 of the model is broken.")

    monkeypatch.setattr(annotated_image, "predict_probability", fail)
    status, page = report(*project)

    assert status == 0
    assert len(pictures(page)) == 3  # the learning curve and two masks


def test_mask_is_that_of_the_clicks_in_the_shape_of_the_image(project):
    studies, model_dir = project

    image = read_project(studies, Project(studies), model_dir).images[0]

    ((_, mask),) = image.masks(image.volume(), None)
    assert mask.shape == SHAPE
    assert 2 * (mask & BALL).sum() / (mask.sum() + BALL.sum()) > 0.9


def test_project_without_a_model_has_a_report(project):
    studies, model_dir = project

    status, page = report(studies, model_dir / "nowhere")

    assert status == 0
    assert "There was no training yet." in page
    assert len(pictures(page)) == 2


def test_image_that_is_gone_or_another_is_named(project):
    studies, model_dir = project
    (studies / "one.nii.gz").unlink()
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), np.float32), AFFINE), studies / "two.nii.gz")

    status, page = report(studies, model_dir)

    assert status == 0
    assert "The image one is not in" in page
    assert "The image two is not the one that was clicked on." in page


@pytest.mark.parametrize(("folder", "sentence"), [("nowhere", "There is no folder"), ("empty", "Nothing is annotated")])
def test_folder_without_annotations_is_refused(tmp_path, capsys, folder, sentence):
    (tmp_path / "empty").mkdir()

    status, page = report(tmp_path / folder, tmp_path)

    assert (status, page) == (2, "")
    assert sentence in capsys.readouterr().err


def test_command_takes_paths_relative_to_the_caller(project):
    studies, model_dir = project

    subprocess.run([SCRIPT, studies.name, "--model-dir", "model"], cwd=studies.parent, check=True, capture_output=True)

    assert "2 of 3 images" in (studies.parent / "report.html").read_text()


def test_page_with_pictures_of_patients_is_for_its_owner_only(project):
    studies, model_dir = project
    command = [SCRIPT, studies, "--model-dir", model_dir]

    subprocess.run(command, cwd=studies.parent, check=True, capture_output=True, umask=0o022)

    assert (studies.parent / "report.html").stat().st_mode & 0o077 == 0


def test_final_masks_are_annotations_too(tmp_path):
    add_image(tmp_path / "studies", "one", clicked=False)
    geometry = ImageGeometry(SHAPE, AFFINE)
    place = Project(tmp_path / "studies")
    store = MaskStore(place.masks(), ("lesion",), place.mapped_masks)
    store.save("one", Volume(BALL.astype(np.uint8), geometry), MaskRecord({"lesion": 1}))

    status, page = report(tmp_path / "studies", tmp_path / "model")

    assert status == 0
    assert "1 of 1 images" in " ".join(Text(page).words)


def test_page_tells_accepted_corrected_and_drawn_masks_apart(project):
    studies, model_dir = project
    place, mask = Project(studies), Volume(BALL.astype(np.uint8), ImageGeometry(SHAPE, AFFINE))
    store = MaskStore(place.masks(), ("lesion",), place.mapped_masks)
    for name, origin in {"one": "accepted", "two": "corrected", "open": None}.items():
        info = {"accepted": {"lesion": {"origin": origin}}} if origin else None
        store.save(name, mask, MaskRecord({"lesion": 1}, info=info))

    _, page = report(studies, model_dir)

    words = " ".join(" ".join(Text(page).words).split())
    assert "1 accepted as the app made them, 1 after corrective clicks, 1 drawn." in words
    assert [f"final mask: lesion {origin}" in words for origin in ("accepted", "corrected", "drawn")] == [True] * 3
