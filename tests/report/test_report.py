"""The report of a project: one page with all that is known, and nothing in it that a name could break."""

import base64
import io
import json
import os
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

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
from lib.report import pictures as pictures_of_report
from lib.report.annotated_project import read_project
from lib.report.page import render
from lib.report.pictures import overlay
from lib.report.wording import duration, local_time, program_name
from lib.server.audit import AuditLog
from lib.server.project import Project, archive_cache, open_project, project_of
from lib.training.record import TrainingRecord, TrainingRun
from scripts.report import main

SHAPE, AFFINE = (32, 30, 28), np.diag([1.0, 1.0, 1.5, 1.0])
BALL = sum((axis - 14) ** 2 for axis in np.ogrid[tuple(map(slice, SHAPE))]) <= 36
HOSTILE = "<script>alert(1)</script>"


class Text(HTMLParser):
    """What a reader sees, and what the page would load."""

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
def in_utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


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
    assert "2 of 3 studies are annotated : each structure (lesion)" in words
    assert "Version 2 of the model is published; its score is 0.72." in words
    assert "one.nii.gz clicked lesion 6 clicks on it, 1 beside it reader 1" in words
    assert "1 not begun open.nii.gz" in words
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
    geometry = ImageGeometry(SHAPE, AFFINE)
    place = Project(studies)
    AnnotationStore(place.clicks).save(Absence.now("two", "cyst", geometry, "reader 2"))
    cyst = Volume((2 * BALL).astype(np.uint8), geometry)
    MaskStore(place.masks(), ("lesion", "cyst"), place.mapped_masks).save("open", cyst, MaskRecord({"cyst": 2}))

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
    """By clicks and absences, in whichever time zone they are stored; final masks by their time too."""
    studies, model_dir = project
    place, geometry = Project(studies), ImageGeometry(SHAPE, AFFINE)
    mask = Volume(BALL.astype(np.uint8), geometry)
    record = MaskRecord({"lesion": 1}, created="2026-11-01T08:00+00:00")
    MaskStore(place.masks(), ("lesion",), place.mapped_masks).save("open", mask, record)
    store = AnnotationStore(place.clicks)
    for name, created in {"one": "2026-11-02T08:00+02:00", "two": "2026-11-02T07:00+00:00"}.items():
        store.save(replace(store.load(name, "lesion"), created=created))

    def order():
        return [image.image_id for image in read_project(str(studies), place, model_dir).images]

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

    image = read_project(str(studies), Project(studies), model_dir).images[0]

    (shown,) = image.masks(image.volume(), None)
    assert shown.mask.shape == SHAPE
    assert 2 * (shown.mask & BALL).sum() / (shown.mask.sum() + BALL.sum()) > 0.9


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
    words = " ".join(Text(page).words)
    assert "1 of 2 studies are annotated" in words
    assert "one clicked · not among the studies any more lesion 6 clicks on it" in words
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


def test_final_masks_are_annotations_too(tmp_path):
    add_image(tmp_path / "studies", "one", clicked=False)
    geometry = ImageGeometry(SHAPE, AFFINE)
    place = Project(tmp_path / "studies")
    store = MaskStore(place.masks(), ("lesion",), place.mapped_masks)
    store.save("one", Volume(BALL.astype(np.uint8), geometry), MaskRecord({"lesion": 1}))

    status, page = report(tmp_path / "studies", tmp_path / "model")

    assert status == 0
    assert "1 of 1 studies" in " ".join(Text(page).words)
    assert len(pictures(page)) == 1  # of the mask


def test_final_mask_is_drawn_in_place_of_what_the_clicks_give(project, asked):
    studies, model_dir = project
    place = Project(studies)
    half = BALL & (np.arange(SHAPE[0]) < 14)[:, None, None]
    store = MaskStore(place.masks(), ("lesion",), place.mapped_masks)
    for name in ("one", "two"):
        store.save(name, Volume(half.astype(np.uint8), ImageGeometry(SHAPE, AFFINE)), MaskRecord({"lesion": 1}))

    for image in read_project(str(studies), place, model_dir).images:
        (shown,) = image.masks(image.volume(), load_checkpoint(model_dir / "inextremis.pt"))
        assert np.array_equal(shown.mask, half)
        assert shown.row.status == "final mask, drawn; 6 clicks on it, 1 beside it"
    assert not asked


def test_final_mask_of_another_image_or_one_that_cannot_be_read_is_named(project):
    studies, model_dir = project
    place = Project(studies)
    store = MaskStore(place.masks(), ("lesion",), place.mapped_masks)
    other = Volume(np.ones((9, 9, 9), np.uint8), ImageGeometry((9, 9, 9), AFFINE))
    store.save("one", other, MaskRecord({"lesion": 1}))
    (place.masks() / "two.nii.gz").write_bytes(b"no mask")

    status, page = report(studies, model_dir)

    assert status == 0
    assert "The final mask of one.nii.gz is not of this image." in page
    assert "final mask that cannot be read" in page
    assert len(pictures(page)) == 2  # the learning curve and the clicks of the other


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An archive of three series, of which one was fetched; the address and the project."""
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
    store = MaskStore(place.masks(), ("lesion",), place.mapped_masks)
    for uid in ("1.2.840.1", "1.2.840.2"):
        store.save(uid, Volume(BALL.astype(np.uint8), ImageGeometry(SHAPE, AFFINE)), MaskRecord({"lesion": 1}, "anna"))
    AuditLog(place.audit).write("mask", "anna", {"address": "", "program": ""}, {"image": "1.2.840.1"})

    assert main([address, "--out", str(tmp_path / "report.html")]) == 0

    page = (tmp_path / "report.html").read_text()
    words = " ".join(Text(page).words)
    assert "127.0.0.1:9/dicom-web Report of" in words
    assert "2 of 3 studies are annotated" in words
    assert "Meyer Anna · T1 post final · 2026-02-03 · MR lesion final mask, drawn anna" in words
    assert "17 · T1 post final · 2026-02-03 · MR lesion final mask, drawn anna" in words
    assert "1 not begun 17 · T1 post 2026-02-03 · MR" in words
    assert "mask Meyer Anna · T1 post" in words.split("Who did what")[1]
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
        ("2026-11-05T10:07:00+00:00", "began 5 Nov 2026, 10:00 has not ended: part 3 of 20, loss 0.41, last heard"),
        ("2026-11-05T09:07:00+00:00", "was last heard of 5 Nov 2026, 09:07 , after part 3 of 20: it was stopped."),
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


def test_training_that_ended_is_not_told_as_one_that_runs(project):
    studies, model_dir = project
    stats = {"epoch": 20, "total_epochs": 20, "start_ts": 1, "total_time": "0:02:00"}
    (model_dir / "inextremis" / "train_stats.json").write_text(json.dumps(stats))

    assert read_project(str(studies), Project(studies), model_dir).training is None


def test_skipped_studies_are_told_with_their_reason(project):
    studies, model_dir = project
    place = Project(studies)
    JsonFile(place.skips).change("open", lambda kept: {"reason": "motion", "annotator": "anna", "created": ""})

    _, page = report(studies, model_dir)

    words = " ".join(Text(page).words)
    assert "open.nii.gz skipped: motion, by anna lesion open" in words
    assert "1 skipped" in words and "not begun" not in words


def test_times_are_those_of_the_reader_and_programs_have_names(in_utc):
    assert local_time("2026-11-05T23:30:00+01:00") == "5 Nov 2026, 22:30"
    assert local_time("2026-11-05T22:30:00.123+00:00", timezone(timedelta(hours=9))) == "6 Nov 2026, 07:30"
    assert local_time("2026-11-05T22:30") == "5 Nov 2026, 22:30"
    assert local_time("some day") == "some day"
    assert duration("2026-11-05T22:30:00+00:00", "2026-11-05T23:29:40+00:00") == "1 h 0 min"
    assert duration("2026-11-05T22:30:00+00:00", "2026-11-05T22:30:40+00:00") == "40 s"
    chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36"
    assert program_name(chrome) == "Chrome 138"
    assert program_name(f"{chrome} Edg/138.0.3351.95") == "Edge 138"
    assert program_name("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0") == "Firefox 140"
    assert program_name("python-requests/2.32") == "python-requests/2.32"


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_picture_shows_the_patient_as_radiologists_look_at_one(monkeypatch, flips, order):
    """A structure at the patient's left, front and top, however the voxels are stored."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * flips)[:, list(order)]
    affine[:3, 3] = -affine[:3, :3] @ [15, 16, 17]
    geometry = ImageGeometry((30, 32, 34), affine)
    mask = np.zeros(geometry.shape, bool)
    mask[5:-5, 5:-5, 5:-5] = True
    from_left_front_top_mm = geometry.voxel_to_ras(np.moveaxis(np.indices(mask.shape), 0, -1)) - [-9, 9, 9]
    bright = np.abs(from_left_front_top_mm).max(axis=-1) < 4.5
    monkeypatch.setattr(pictures_of_report, "MASK", "#000000")
    # The cut is where the mask is largest: through what is bright.
    mask &= (np.abs(from_left_front_top_mm) < 4.5).any(axis=-1)
    volume = Volume(1000.0 * bright, geometry)

    picture = np.asarray(Image.open(io.BytesIO(overlay(volume, mask, None))).convert("RGB")).astype(int)

    rows, columns = np.nonzero(picture.min(axis=-1) > 250)
    views = [picture.shape[1] * n / 3 for n in range(4)]
    for n, is_right_of_middle in enumerate((True, True, False)):  # left of the patient; sagittal: front
        letters_off = 0.1 * (views[n + 1] - views[n])
        inside = (columns > views[n] + letters_off) & (columns < views[n + 1] - letters_off)
        inside &= (rows > 0.1 * picture.shape[0]) & (rows < 0.9 * picture.shape[0])
        middle = (views[n] + views[n + 1]) / 2
        assert (np.median(columns[inside]) > middle) == is_right_of_middle
        assert np.median(rows[inside]) < picture.shape[0] / 2  # front, or top


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
    assert [f"lesion final mask, {origin}" in words for origin in ("accepted", "corrected", "drawn")] == [True] * 3
