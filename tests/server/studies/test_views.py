"""The cache of scans as the annotation page loads them: made once, never half, never too much, gone with its image."""

import gzip
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from lib.geometry.volume import VolumeError
from lib.server.studies import views as module
from lib.server.studies.open_studies import open_studies
from lib.server.studies.views import THUMBNAIL_PIXELS, Views
from tests.full_disk import no_space
from tests.server.studies.images import AFFINE, SHAPE, contents, write_image, write_nrrd


@pytest.fixture
def views(tmp_path):
    return Views(tmp_path / "views")


@pytest.fixture
def scan(tmp_path):
    return write_nrrd(tmp_path / "scan.nrrd")


@pytest.fixture
def writes(monkeypatch):
    """Record the images that views are made of."""
    made, write = [], module.write_view

    def counted(source, target):
        made.append(source.name)
        time.sleep(0.05)
        write(source, target)

    monkeypatch.setattr(module, "write_view", counted)
    return made


def test_view_is_made_once_and_has_the_voxels_of_the_image(views, scan, writes):
    first, second = views.scan("scan", scan), Views(views.folder).scan("scan", scan)

    assert first == second and writes == ["scan.nrrd"]
    assert nib.load(first.path).shape == SHAPE
    assert first.path.parent == views.folder


def test_two_at_once_make_it_once_and_others_do_not_wait(views, scan, writes, tmp_path):
    other = write_nrrd(tmp_path / "other.nrrd", patient=1)
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(views.scan, image, path) for image, path in [("scan", scan)] * 4 + [("other", other)]]
        found = {future.result() for future in asked}

    assert len(found) == 2 and sorted(writes) == ["other.nrrd", "scan.nrrd"]


def test_plain_file_is_sent_itself(views, tmp_path, writes):
    path = write_image(tmp_path / "scan.nii.gz")

    assert views.known_bytes("scan", path) is None
    assert views.scan("scan", path).path == path
    assert views.known_bytes("scan", path) == path.stat().st_size
    assert writes == [] and not views.folder.exists()


def test_file_that_was_replaced_has_another_view_and_version(views, scan, writes):
    before = views.scan("scan", scan)
    write_nrrd(scan, patient=1)

    after = views.scan("scan", scan)

    assert after.version != before.version and writes == ["scan.nrrd"] * 2
    assert not before.path.exists()


def test_images_of_the_same_content_have_views_of_their_own(views, scan, tmp_path):
    copy = tmp_path / "copy.nrrd"
    copy.write_bytes(scan.read_bytes())

    assert views.scan("scan", scan).path != views.scan("copy", copy).path


def test_size_is_known_once_it_is_made(views, scan):
    assert views.known_bytes("scan", scan) is None
    view = views.scan("scan", scan)
    assert views.known_bytes("scan", scan) == view.path.stat().st_size


def test_nothing_is_left_of_what_could_not_be_made(views, tmp_path, monkeypatch):
    scan = tmp_path / "scan.nii"
    nib.Nifti1Image(np.full(SHAPE, np.nan, np.float32), AFFINE).to_filename(scan)
    with pytest.raises(VolumeError):
        views.scan("scan", scan)

    def fails(source, target):
        target.write_bytes(b"a part")
        no_space()

    monkeypatch.setattr(module, "write_view", fails)
    with pytest.raises(OSError, match="No space"):
        views.scan("scan", scan)

    assert list(views.folder.iterdir()) == []


def test_image_that_is_gone_is_refused(views, tmp_path):
    for ask in (views.scan, views.thumbnail, views.known_bytes):
        with pytest.raises(VolumeError, match="is not there"):
            ask("scan", tmp_path / "scan.nii.gz")


def test_cache_does_not_outgrow_its_limit_and_keeps_what_was_used_last(tmp_path):
    paths = {name: write_nrrd(tmp_path / f"{name}.nrrd", patient=n) for n, name in enumerate("abc")}
    size = Views(tmp_path / "one").scan("a", paths["a"]).path.stat().st_size
    views = Views(tmp_path / "views", limit_bytes=int(2.5 * size))
    made = {}
    for age, name in ((300, "a"), (200, "b")):
        made[name] = views.scan(name, paths[name]).path
        os.utime(made[name], (time.time() - age, time.time() - age))
    views.scan("a", paths["a"])

    made["c"] = views.scan("c", paths["c"]).path

    assert {name for name, path in made.items() if path.exists()} == {"a", "c"}


def test_view_that_is_being_sent_stays_readable_when_it_goes(views, scan):
    with gzip.open(views.scan("scan", scan).path) as file:
        views.forget("scan")
        assert len(file.read()) > 0
    assert list(views.folder.iterdir()) == []


def test_image_takes_its_views_along_and_no_others(tmp_path):
    write_nrrd(tmp_path / "studies" / "scan.nrrd"), write_nrrd(tmp_path / "studies" / "scan2.nrrd")
    studies = open_studies(str(tmp_path / "studies"), ("lesion",), None)
    for image, path in studies.local_images().items():
        studies.views.scan(image, path)
        studies.views.thumbnail(image, path)

    studies.remove_image("scan")

    assert len(list(studies.project.views.iterdir())) == 2
    assert studies.views.known_bytes("scan2", studies.image_path("scan2")) is not None


def test_thumbnail_is_small_and_as_wide_as_the_patient(views, tmp_path):
    path = write_image(tmp_path / "scan.nii.gz", shape=(40, 20, 8), affine=np.diag([1.0, 1.0, 5.0, 1.0]))

    picture = Image.open(views.thumbnail("scan", path).path)

    assert picture.format == "PNG" and picture.size == (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS // 2)
    assert np.asarray(picture).std() > 10


def test_thumbnail_shows_the_shape_in_millimetres(views, tmp_path):
    path = write_image(tmp_path / "scan.nii.gz", shape=(20, 20, 8), affine=np.diag([0.5, 1.0, 5.0, 1.0]))

    assert Image.open(views.thumbnail("scan", path).path).size == (THUMBNAIL_PIXELS // 2, THUMBNAIL_PIXELS)


def test_thumbnail_of_one_intensity_is_made(views, tmp_path):
    nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE).to_filename(tmp_path / "scan.nii")

    assert Image.open(views.thumbnail("scan", tmp_path / "scan.nii").path).getextrema() == (0, 0)


def test_reader_never_sees_a_part(views, scan, monkeypatch):
    """A reader that looks all the time sees no view, or a whole one."""
    size, seen, stop = 2**26, set(), threading.Event()
    monkeypatch.setattr(module, "write_view", lambda source, target: target.write_bytes(bytes(size)))

    def look():
        while not stop.is_set():
            for path in views.folder.glob("[!.]*"):
                with suppress(FileNotFoundError):
                    seen.add(path.stat().st_size)

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(5):
        views.scan("scan", scan)
        time.sleep(0.02)
        views.forget("scan")
    stop.set()
    reader.join()

    assert seen == {size}


def test_reading_changes_nothing_of_the_studies(tmp_path):
    write_nrrd(tmp_path / "studies" / "scan.nrrd")
    before = contents(tmp_path / "studies")

    Views(tmp_path / "views").scan("scan", tmp_path / "studies" / "scan.nrrd")

    assert contents(tmp_path / "studies") == before
