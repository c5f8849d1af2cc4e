"""The report of a project: one page with all that is known, and nothing in it that a name could break."""

import base64
import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.json_file import JsonFile
from lib.annotations.mask_file import MaskRecord
from lib.annotations.mask_store import MaskStore
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Absence, Annotation, AnnotationStore
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.inference.prediction import BrokenModelError, predict_probability
from lib.networks.checkpoint import NetworkSpec, TrainedModel, load_checkpoint, save_checkpoint
from lib.report import annotated_image
from lib.report.annotated_project import read_project
from lib.report.page import render
from lib.server.audit import AuditLog
from lib.server.project import Project, archive_cache, open_project, project_of
from lib.training.record import TrainingRecord, TrainingRun
from scripts.report import main

SHAPE, AFFINE = (32, 30, 28), np.diag([1.0, 1.0, 1.5, 1.0])
BALL = sum((axis - 14) ** 2 for axis in np.ogrid[tuple(map(slice, SHAPE))]) <= 36
HOSTILE = "<script>alert(1)</script>"


class Text(HTMLParser):
    """Words that a reader sees, and what the page would load."""

    def __init__(self, page):
        super().__init__()
        self.words, self.tags, self.sources = [], [], []
        self.feed(page.partition("</style>")[2])

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words += data.split()


def add_image(studies, name, annotator=None, clicked=True):
    studies.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).normal(0, 0.05, SHAPE) + BALL
    nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), studies / f"{name}.nii.gz")
    if clicked:
        points = ExtremePoints.from_clicks("lesion", simulated_extreme_points(BALL), np.array([[2, 2, 2]]))
        geometry = ImageGeometry(SHAPE, AFFINE)
        store = AnnotationStore(studies / "labels" / "extreme_points")
        store.save(Annotation.now(name, points, geometry, annotator or "reader 1"))


def add_mask(project, name, mask=BALL, labels=None, **record):
    """Store a final mask, of a lesion by default."""
    volume = Volume(mask.astype(np.uint8), ImageGeometry(mask.shape, AFFINE))
    labels = labels or {"lesion": 1}
    store = MaskStore(project.masks(), ("lesion", "cyst"), project.mapped_masks)
    store.save(name, volume, MaskRecord(labels, **record))


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
    """Images that the network was asked for."""
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
    assert "2 of 3 studies are annotated : each structure (lesion)" in words
    assert "Version 2 of the model is published; its score is 0.72." in words
    assert "one.nii.gz clicked lesion 6 clicks on it, 1 beside it reader 1" in words
    assert "1 not started open.nii.gz" in words
    for figures in ("2 min 1 8 240 0.61 0.60 2 held-out scans", "2 min not published 8 480 0.43", "2 8 720 0.72"):
        assert figures in words


def test_page_shows_the_newest_of_the_audit_log(project):
    studies, model_dir = project
    log = AuditLog(Project(studies).audit)
    log.write("clicks", "anna", {"address": "10.1.2.3", "program": HOSTILE}, {"image": "one", "labels": ["lesion"]})
    log.write("training", HOSTILE, {"address": "10.1.2.4", "program": ""}, {})

    status, page = report(studies, model_dir)

    words = " ".join(Text(page).words)
    assert status == 0
    assert f"anna clicks one.nii.gz; labels: lesion {HOSTILE} 10.1.2.3" in words
    assert words.index("training") < words.index("anna clicks")
    assert "script" not in Text(page).tags


def test_images_count_as_annotated_when_all_labels_are_answered(project):
    studies, model_dir = project
    absence = Absence.now("two", "cyst", ImageGeometry(SHAPE, AFFINE), "reader 2")
    AnnotationStore(Project(studies).clicks).save(absence)
    add_mask(Project(studies), "open", 2 * BALL, {"cyst": 2})

    _, page = report(studies, model_dir, "--labels", "lesion,cyst")

    words = " ".join(Text(page).words)
    assert "1 of 3 studies are annotated : each structure (lesion, cyst)" in words
    assert f"two.nii.gz clicked lesion 6 clicks on it, 1 beside it {HOSTILE}" in words
    assert "cyst not in this scan reader 2" in words
    assert re.search("one.nii.gz in part lesion 6 clicks on it, 1 beside it reader 1 [^:]*:.. cyst open", words)
    assert "open.nii.gz in part lesion open cyst final mask, drawn" in words
    assert len(pictures(page)) == 4  # the learning curve, the clicks on two lesions, the mask of a cyst


def test_labels_are_those_that_the_project_began_with(project):
    open_project(Project(project[0]), ("lesion", "cyst"))

    _, page = report(*project)

    assert "0 of 3 studies are annotated : each structure (lesion, cyst)" in " ".join(Text(page).words)


def test_page_holds_its_pictures_loads_nothing_and_shows_names_as_text(project):
    _, page = report(*project)

    assert len(pictures(page)) == 3  # the learning curve and two masks
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures(page))
    assert all(source.startswith("data:") for source in Text(page).sources)
    assert HOSTILE in " ".join(Text(page).words)
    assert "script" not in Text(page).tags


@pytest.mark.parametrize(
    ("score", "options", "n_pictures", "n_asked"),
    [(0.72, (), 3, 2), (0.72, ("--max-pictures", "1"), 2, 1), (0.5, (), 3, 0)],
    ids=["all", "one picture", "network without weight"],
)
def test_network_is_asked_for_each_picture_of_clicks_if_it_has_a_weight(
    project, asked, score, options, n_pictures, n_asked
):
    add_model(project[1], score=score)

    _, page = report(*project, *options)

    assert len(pictures(page)) == n_pictures  # with the learning curve
    assert len(asked) == n_asked


def test_newest_is_first(project):
    """By clicks and absences, in whichever time zone they are stored; final masks by their time too."""
    studies, model_dir = project
    place, geometry = Project(studies), ImageGeometry(SHAPE, AFFINE)
    add_mask(place, "open", created="2026-11-01T08:00+00:00")
    store = AnnotationStore(place.clicks)
    for name, created in {"one": "2026-11-02T08:00+02:00", "two": "2026-11-02T07:00+00:00"}.items():
        store.save(replace(store.load(name, "lesion"), created=created))

    def order():
        return [image.image_id for image in read_project(str(studies), place, model_dir).images]

    assert order() == ["two", "one", "open"]
    store.save(replace(Absence.now("one", "cyst", geometry, "reader 1"), created="2026-11-02T07:30+00:00"))
    assert order() == ["one", "two", "open"]


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

    image = read_project(str(studies), Project(studies), model_dir).images[0]

    (shown,) = image.masks(image.volume(), None)
    assert shown.mask.shape == SHAPE
    assert 2 * (shown.mask & BALL).sum() / (shown.mask.sum() + BALL.sum()) > 0.9


def test_project_without_a_model_has_a_report(project):
    studies, model_dir = project

    status, page = report(studies, model_dir / "nowhere")

    assert status == 0
    assert "There are no trainings yet." in page
    assert len(pictures(page)) == 2


def test_image_that_is_gone_or_another_is_named(project):
    studies, model_dir = project
    (studies / "one.nii.gz").unlink()
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), np.float32), AFFINE), studies / "two.nii.gz")

    status, page = report(studies, model_dir)

    assert status == 0
    words = " ".join(Text(page).words)
    assert "1 of 2 studies are annotated" in words
    assert "one clicked · no longer in the studies lesion 6 clicks on it" in words
    assert "one is not among the studies any more." in words
    assert "two.nii.gz is not the image that was clicked on." in words


@pytest.mark.parametrize(("folder", "sentence"), [("nowhere", "There is no folder"), ("empty", "Nothing is annotated")])
def test_folder_without_annotations_is_refused(tmp_path, capsys, folder, sentence):
    (tmp_path / "empty").mkdir()

    status, page = report(tmp_path / folder, tmp_path)

    assert (status, page) == (2, "")
    assert sentence in capsys.readouterr().err


def test_page_lies_where_the_caller_is_and_is_for_its_owner_only(project, monkeypatch):
    studies, model_dir = project
    monkeypatch.chdir(studies.parent)
    umask = os.umask(0o022)

    try:
        assert main([studies.name, "--model-dir", "model"]) == 0
    finally:
        os.umask(umask)

    page = studies.parent / "report.html"
    assert "2 of 3 studies" in page.read_text()
    assert page.stat().st_mode & 0o077 == 0


def test_final_mask_is_drawn_in_place_of_what_the_clicks_give(project, asked):
    studies, model_dir = project
    half = BALL & (np.arange(SHAPE[0]) < 14)[:, None, None]
    for name in ("one", "two"):
        add_mask(Project(studies), name, half)

    for image in read_project(str(studies), Project(studies), model_dir).images:
        (shown,) = image.masks(image.volume(), load_checkpoint(model_dir / "inextremis.pt"))
        assert np.array_equal(shown.mask, half)
        assert shown.row.status == "final mask, drawn; 6 clicks on it, 1 beside it"
    assert not asked


def test_final_mask_of_another_image_or_one_that_cannot_be_read_is_named(project):
    studies, model_dir = project
    add_mask(Project(studies), "one", np.ones((9, 9, 9)))
    (Project(studies).masks() / "two.nii.gz").write_bytes(b"no mask")

    status, page = report(studies, model_dir)

    assert status == 0
    assert "The final mask of one.nii.gz is not of this image." in page
    assert "final mask that cannot be read" in page
    assert len(pictures(page)) == 2  # the learning curve and the clicks of the other


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Archive of three series, of which one was fetched; its URL and the project."""
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))
    address = "http://127.0.0.1:9/dicom-web/"
    place, cache = project_of(address), archive_cache(address)
    add_image(cache / "volumes", "1.2.840.1", clicked=False)
    facts = {"PatientID": "17", "StudyDate": "20260203", "Modality": "MR", "SeriesDescription": "T1 post"}
    series = {f"1.2.840.{n}": {"facts": facts, "instances": 28} for n in (1, 2, 3)}
    series["1.2.840.1"]["facts"] = facts | {"PatientName": "Meyer^Anna"}
    (cache / "listing.json").write_text(json.dumps(series))
    open_project(place, ("lesion",))
    return address, place


def test_report_of_an_archive_of_final_masks_names_patients_and_counts_what_was_never_fetched(archive, tmp_path):
    address, place = archive
    for uid in ("1.2.840.1", "1.2.840.2"):
        add_mask(place, uid, annotator="anna")
    AuditLog(place.audit).write("mask", "anna", {"address": "", "program": ""}, {"image": "1.2.840.1"})

    assert main([address, "--out", str(tmp_path / "report.html")]) == 0

    page = (tmp_path / "report.html").read_text()
    words = " ".join(Text(page).words)
    assert "127.0.0.1:9/dicom-web Report of" in words
    assert "2 of 3 studies are annotated" in words
    assert "Meyer Anna · T1 post final · 2026-02-03 · MR lesion final mask, drawn anna" in words
    assert "17 · T1 post final · 2026-02-03 · MR lesion final mask, drawn anna" in words
    assert "1 not started 17 · T1 post 2026-02-03 · MR" in words
    assert "mask Meyer Anna · T1 post" in words.split("Audit log")[1]
    assert "17 · T1 post is in the archive, and the server has no copy of it to draw." in words
    assert "1.2.840" not in page
    assert len(pictures(page)) == 1


def test_archive_that_was_never_served_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))

    assert main(["http://127.0.0.1:9/dicom-web", "--out", str(tmp_path / "report.html")]) == 2
    assert "There is no project of 127.0.0.1:9/dicom-web" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("heard", "sentence"),
    [
        ("2026-11-05T10:07:00+00:00", "started 5 Nov 2026, 10:00 is running: part 3 of 20, loss 0.41, updated"),
        ("2026-11-05T09:07:00+00:00", "was stopped after part 3 of 20, 5 Nov 2026, 09:07"),
    ],
)
def test_page_tells_of_a_training_that_runs_or_was_stopped(project, heard, sentence, in_utc):
    studies, model_dir = project
    stats = model_dir / "inextremis" / "train_stats.json"
    began = datetime(2026, 11, 5, 10, tzinfo=UTC).timestamp()
    stats.write_text(json.dumps({"epoch": 3, "total_epochs": 20, "start_ts": began, "loss": 0.41}))
    os.utime(stats, (began, datetime.fromisoformat(heard).timestamp()))

    read = read_project(str(studies), Project(studies), model_dir)
    page = render(read, 0, now=datetime(2026, 11, 5, 10, 10, tzinfo=UTC))

    assert sentence in " ".join(Text(page).words)
    stats.write_text(json.dumps(json.loads(stats.read_text()) | {"total_time": "0:02:00"}))
    assert read_project(str(studies), Project(studies), model_dir).training is None


def test_skipped_studies_are_told_with_their_reason(project):
    studies, model_dir = project
    place = Project(studies)
    JsonFile(place.skips).change("open", lambda kept: {"reason": "motion", "annotator": "anna", "created": ""})

    _, page = report(studies, model_dir)

    words = " ".join(Text(page).words)
    assert "open.nii.gz skipped: motion, by anna lesion open" in words
    assert "1 skipped" in words and "not started" not in words


def test_page_tells_accepted_corrected_and_drawn_masks_apart(project):
    studies, model_dir = project
    for name, origin in {"one": "accepted", "two": "corrected", "open": None}.items():
        add_mask(Project(studies), name, info={"accepted": {"lesion": {"origin": origin}}} if origin else None)

    _, page = report(studies, model_dir)

    words = " ".join(" ".join(Text(page).words).split())
    assert "1 accepted without changes, 1 after corrective clicks, 1 drawn." in words
    assert [f"lesion final mask, {origin}" in words for origin in ("accepted", "corrected", "drawn")] == [True] * 3
