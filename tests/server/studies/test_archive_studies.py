"""The series of an archive over real HTTP: fetched once and whole, and their masks shared with the archive."""

import json
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import load_volume
from lib.server.archive import archive_listing
from lib.server.archive.archive import Archive
from lib.server.project import Project, open_project
from lib.server.studies.archive_studies import ArchiveStudies
from lib.server.studies.removal import removals, restore
from lib.trainers.annotated_scans import annotated_scans
from tests.full_disk import small_disk
from tests.server.archive import dicomweb
from tests.server.archive.dicomweb import instances, served, two_series
from tests.server.refusals import refusal
from tests.server.studies.images import AFFINE, LABELS, SHAPE, click, contents, submit, tags_of
from tests.server.waiting import wait_for

PATIENCE_S = 20
DEPTH = SHAPE[2]


@pytest.fixture(autouse=True)
def expires_at_once(monkeypatch):
    """Every look asks the archive anew, and waits for its answer as long as it may take on a busy machine."""
    monkeypatch.setattr(archive_listing, "EXPIRES_S", 0.0)
    monkeypatch.setattr(archive_listing, "PATIENCE_S", 5.0)


@pytest.fixture
def archive():
    return two_series()


@pytest.fixture
def address(archive):
    with served(archive) as address:
        yield address


@pytest.fixture
def opened(address, tmp_path):
    """Return a function that opens the studies of the archive, or of one at another address."""

    def open_studies(address=address, fetch_by_frame=False):
        project = Project(tmp_path / "project")
        client = Archive(address, None, {"Modality": "MR"}, fetch_by_frame)
        return ArchiveStudies(client, tmp_path / "cache", project, open_project(project, LABELS), LABELS)

    return open_studies


@pytest.fixture
def studies(opened):
    return opened()


@pytest.fixture
def series(archive):
    return next(iter(archive.series))


def in_threads(*jobs):
    """Run jobs at once, and return their results or errors."""
    results = [None] * len(jobs)

    def run(n):
        try:
            results[n] = jobs[n]()
        except Exception as error:
            results[n] = error

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "somebody waits for ever"
    return results


def shape_of(path):
    return load_volume(path).array.shape


# Series of several volumes


@pytest.fixture
def echoes(archive, series):
    """Series of two volumes; its UID."""
    archive.series[series] = two_volumes(archive, series)
    return series


def test_series_of_several_volumes_is_replaced_by_them_when_it_is_opened(studies, archive, echoes, opened):
    series = echoes
    other = next(uid for uid in archive.series if uid != series)

    assert sorted(studies.list_images()) == sorted(archive.series)
    status, sentence = refusal(studies.get_image_uri, series)

    assert status == 422 and f"{series}_te4.6, {series}_te9.2" in sentence
    for found in (studies, opened()):
        assert sorted(found.list_images()) == sorted([f"{series}_te4.6", f"{series}_te9.2", other])
        assert refusal(found.get_image_uri, series) == (status, sentence)
        assert found.refusal(series) == sentence
    for volume in ("te4.6", "te9.2"):
        assert shape_of(studies.get_image_uri(f"{series}_{volume}")) == SHAPE
        assert studies.image_facts(f"{series}_{volume}")["SeriesInstanceUID"] == series
    assert archive.fetches() == [series]


def test_volume_is_found_again_where_only_the_annotations_are_left(studies, echoes, opened, tmp_path):
    image = f"{echoes}_te9.2"
    path = studies.get_image_uri(image)
    checksum = load_volume(path).array.sum()
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(studies.project.own)

    again = opened()

    assert load_volume(again.get_image_uri(image)).array.sum() == checksum
    assert image in again.list_images()


def test_series_that_has_become_several_volumes_is_no_image_any_more(studies, archive, series):
    assert shape_of(studies.get_image_uri(series)) == SHAPE
    archive.series[series] = two_volumes(archive, series)

    assert refusal(studies.get_image_uri, series)[0] == 422

    assert sorted(studies.local_images()) == [f"{series}_te4.6", f"{series}_te9.2"]


@pytest.mark.parametrize("name", ["te1", "../../x", "te9.2/..", "", "TE9.2"])
def test_volume_that_a_series_does_not_hold_is_404_and_fetched_no_second_time(studies, archive, echoes, name):
    refusal(studies.get_image_uri, echoes)

    for _ in range(2):
        assert refusal(studies.get_image_uri, f"{echoes}_{name}")[0] == 404
    assert archive.fetches() == [echoes]


def test_mask_of_a_volume_refers_to_its_instances(studies, archive, echoes):
    image = f"{echoes}_te9.2"
    studies.get_image_uri(image)
    submit(studies, image)

    assert studies.share_mask(image) is None

    (stored,) = archive.stored
    assert all((f"1.2.{volume}.3".encode() in stored) == (volume == 2) for volume in (1, 2))


def two_volumes(archive, uid):
    """Twice as many instances, of two echoes."""
    made = []
    for volume in (1, 2):
        for n, instance in enumerate(instances(str(archive.series[uid][0].PatientID)), start=1):
            instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = f"1.2.{volume}.{n}"
            instance.EchoTime, instance.InstanceNumber = f"{4.6 * volume:g}", volume * DEPTH + n
            instance.PixelData = (instance.pixel_array + volume).astype("<i2").tobytes()
            made.append(instance)
    return made


# The list


@pytest.mark.parametrize("total", [0, 2])
def test_images_are_the_series_of_the_archive_if_it_has_any(opened, archive, total):
    archive.series = dict(list(archive.series.items())[:total])

    assert sorted(opened().list_images()) == sorted(archive.series)
    assert opened().status() == {"total": total, "completed": 0, "label_tags": {}}


@pytest.mark.parametrize(
    "image_id",
    [
        *("", ".", "..", "../..", "../x", "../project/labels", "/etc/hostname", "/", "*", "\0", "\ud800"),
        *("1.2.3", "1.2.3/", "volumes", "listing"),
    ],
)
def test_id_that_the_archive_has_not_is_not_found_and_nothing_is_removed(studies, series, tmp_path, image_id):
    studies.get_image_uri(series)
    click(studies, series)
    (tmp_path / "x.nii.gz").write_bytes(b"of somebody else")
    before = contents(tmp_path)

    for ask in (studies.get_image_uri, studies.get_image_info, studies.local_file, studies.remove_image):
        code, sentence = refusal(ask, image_id)
        assert code == 404
        assert sentence
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before


def test_viewers_are_told_of_the_study_and_the_patient(studies, archive, series):
    info = studies.get_image_info(series)

    made = archive.series[series][0]
    assert info["SeriesInstanceUID"] == series
    assert (info["StudyInstanceUID"], info["PatientID"]) == (str(made.StudyInstanceUID), "one")
    assert json.dumps(info)


# Fetching


def test_volume_lies_where_the_series_lies(studies, archive, series):
    volume = load_volume(studies.get_image_uri(series))

    assert volume.geometry.is_close(ImageGeometry(SHAPE, AFFINE))
    expected = np.stack([instance.pixel_array.T for instance in archive.series[series]], axis=-1)
    np.testing.assert_array_equal(volume.array, expected)


@pytest.mark.parametrize(
    ("cut_in", "by_frame"), [("chunks", False), ("length", False), ("closing", False), (None, True)]
)
@pytest.mark.parametrize("breaks_after", [0, 1, DEPTH // 2, DEPTH - 1])
@pytest.mark.parametrize("restarts", [False, True])
def test_series_cut_short_is_an_error_of_the_archive_and_fetched_whole_the_next_time(
    opened, archive, series, tmp_path, cut_in, by_frame, breaks_after, restarts
):
    studies = opened(fetch_by_frame=by_frame)
    archive.cut_in, archive.breaks_after = cut_in, breaks_after
    code, sentence = refusal(studies.get_image_uri, series)

    assert code == 502
    assert studies.archive.url in sentence
    assert not list((tmp_path / "cache").rglob("*.nii.gz"))
    assert not list((tmp_path / "cache").rglob("*.dcm"))
    archive.breaks_after = None
    assert shape_of((opened(fetch_by_frame=by_frame) if restarts else studies).get_image_uri(series)) == SHAPE


@pytest.mark.parametrize("fails", [False, True])
def test_many_who_ask_for_one_series_fetch_it_once_and_share_its_end(studies, archive, series, opened, fails):
    archive.breaks_after = 1 if fails else None
    archive.before = lambda path: path.endswith(series) and time.sleep(0.3)

    found = in_threads(*[lambda: studies.get_image_uri(series)] * 6)

    if fails:
        assert {error.status_code for error in found} == {502}
        return
    assert {studies.get_image_uri(series), opened().get_image_uri(series), *found} == {found[0]}
    assert shape_of(found[0]) == SHAPE
    assert archive.fetches() == [series]


def test_two_series_are_fetched_at_the_same_time(studies, archive):
    together = threading.Barrier(2)
    archive.before = lambda path: path.rsplit("/", 1)[1] in archive.series and together.wait(PATIENCE_S / 2)

    found = in_threads(*[lambda name=name: studies.get_image_uri(name) for name in archive.series])

    assert [shape_of(path) for path in found] == [SHAPE] * 2


def test_slow_fetch_keeps_nobody_from_anything_else(studies, archive, series):
    other = next(uid for uid in archive.series if uid != series)
    studies.get_image_uri(other)
    fetching, go_on = threading.Event(), threading.Event()

    def wait(path):
        if path.endswith(series):
            fetching.set()
            go_on.wait(PATIENCE_S)

    archive.before = wait
    slow = threading.Thread(target=studies.get_image_uri, args=(series,), daemon=True)
    slow.start()
    assert fetching.wait(PATIENCE_S)
    try:
        results = in_threads(
            studies.list_images,
            studies.get_labeled_images,
            studies.status,
            lambda: studies.get_image_info(series),
            lambda: studies.get_image_uri(other),
            lambda: submit(studies, other),
        )
        assert not [result for result in results if isinstance(result, Exception)]
        assert slow.is_alive()
    finally:
        go_on.set()
        slow.join(PATIENCE_S)


def test_second_process_leaves_a_fetch_alone_that_is_under_way(studies, archive, series, opened):
    """A training opens the studies too."""
    archive.before = lambda path: path.endswith(series) and opened()

    assert shape_of(studies.get_image_uri(series)) == SHAPE


def test_what_a_killed_server_was_fetching_is_removed(studies, tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    volumes = tmp_path / "cache" / "volumes"
    left, target, link = (volumes / f".fetching-{ended.pid}-{name}" for name in ("a", "b", "c"))
    (left / "series").mkdir(parents=True)
    (left / "series" / "000000.dcm").write_bytes(b"half")
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"of somebody else")

    ArchiveStudies(studies.archive, tmp_path / "cache", studies.project, studies.identity, LABELS)

    assert not left.exists()
    assert (tmp_path / "elsewhere" / "file").exists()


def test_full_disk_is_said_and_leaves_nothing(opened, archive, series, tmp_path):
    with small_disk(tmp_path / "cache", "28k") as disk:
        studies = opened()
        code, sentence = refusal(studies.get_image_uri, series)

        assert code == 507
        assert "could not be stored (No space left on device). Make room" in sentence
        assert list((disk / "volumes").iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        assert shape_of(studies.get_image_uri(series)) == SHAPE


# Series that are no volume


def uneven(archive, uid):
    del archive.series[uid][3]


def localizer(archive, uid):
    del archive.series[uid][1:]


def headless(archive, uid):
    del archive.series[uid][-1]
    for instance in archive.series[uid]:
        del instance.ImagePositionPatient


@pytest.mark.parametrize("damage", [uneven, localizer, headless])
def test_series_that_is_no_volume_is_fetched_once_until_its_number_of_instances_changes(
    studies, archive, series, opened, damage
):
    whole = list(archive.series[series])
    archive.series[series] = instances("one")
    damage(archive, series)

    first = refusal(studies.get_image_uri, series)
    for found in (studies, opened()):
        assert refusal(found.get_image_uri, series) == first
    assert first[0] == 422
    assert archive.fetches() == [series]

    archive.series[series] = whole
    assert shape_of(studies.get_image_uri(series)) == SHAPE
    assert archive.fetches() == [series] * 2


def test_refused_series_of_an_archive_that_does_not_count_is_asked_for_again_after_a_while(
    studies, archive, series, monkeypatch
):
    archive.counts = False
    whole = list(archive.series[series])
    uneven(archive, series)
    for _ in range(3):
        assert refusal(studies.get_image_uri, series)[0] == 422
    assert archive.fetches() == [series]
    archive.series[series] = whole

    monkeypatch.setattr("lib.server.studies.archive_studies.ASK_AGAIN_S", 0.0)

    assert shape_of(studies.get_image_uri(series)) == SHAPE


def test_series_that_grew_is_fetched_anew_and_its_clicks_do_not_count(studies, archive, series, opened):
    """It was opened while it arrived."""
    whole = archive.series[series]
    archive.series[series] = whole[:7]
    assert shape_of(studies.get_image_uri(series)) == (*SHAPE[:2], 7)
    click(studies, series)
    assert studies.get_labeled_images() == [series]

    archive.series[series] = whole

    for found in (studies, opened()):
        assert shape_of(found.get_image_uri(series)) == SHAPE
        assert found.get_labeled_images() == []
    assert archive.fetches() == [series] * 2


def test_series_that_left_the_archive_is_gone_and_fetched_anew_when_it_is_back(studies, archive, series):
    """It comes back with as many instances as before, under the same UID."""
    first = load_volume(studies.get_image_uri(series)).array
    click(studies, series)
    before = archive.series.pop(series)
    assert series not in studies.list_images()
    assert refusal(studies.get_image_uri, series)[0] == 404
    assert studies.clicks.paths_of(series)

    for instance in before:
        instance.PixelData = bytes(reversed(instance.PixelData))
    archive.series[series] = before

    assert series in studies.list_images()
    assert (load_volume(studies.get_image_uri(series)).array != first).any()


def test_volume_that_was_damaged_in_the_cache_is_fetched_anew(studies, archive, series):
    path = Path(studies.get_image_uri(series))
    path.write_bytes(path.read_bytes()[:100])

    assert shape_of(studies.get_image_uri(series)) == SHAPE


# The archive away


@pytest.fixture
def away(archive, tmp_path, monkeypatch):
    """Studies of which one series was fetched, and whose archive has gone since."""
    monkeypatch.setattr(archive_listing, "PATIENCE_S", 0.8)
    project = Project(tmp_path / "project")
    series = next(iter(archive.series))

    def opened(address):
        client = Archive(address, None, {"Modality": "MR"})
        return ArchiveStudies(client, tmp_path / "cache", project, open_project(project, LABELS), LABELS)

    with served(archive) as address:
        studies = opened(address)
        studies.get_image_uri(series)
    return studies, lambda: opened(address), series


def test_fetched_series_is_served_at_once_while_the_archive_is_away_and_others_are_an_error(away):
    studies, opened, series = away

    for found in (studies, opened()):
        begin = time.monotonic()
        assert shape_of(found.get_image_uri(series)) == SHAPE
        click(found, series)
        assert len(found.list_images()) == 2
        assert found.get_labeled_images() == [series]
        assert found.status()["completed"] == 1
        assert time.monotonic() - begin < 3
    other = next(uid for uid in studies.list_images() if uid != series)

    begin = time.monotonic()
    code, sentence = refusal(studies.get_image_uri, other)

    assert (code, time.monotonic() - begin < 5) == (502, True)
    assert sentence == f"The DICOMweb archive {studies.archive.url} does not answer as it should; check that it runs."
    wait_for(lambda: "problem" in studies.status())

    assert "does not answer" in studies.status()["problem"]


def test_archive_that_has_never_answered_is_a_502(opened, tmp_path):
    studies = opened("http://127.0.0.1:9/dicom-web")

    assert refusal(studies.list_images)[0] == 502


# Annotations


def test_annotations_do_not_lie_in_the_cache_which_may_be_emptied(studies, series, tmp_path, opened):
    studies.get_image_uri(series)
    click(studies, series)
    submit(studies, series)

    shutil.rmtree(tmp_path / "cache")
    again = opened()

    assert again.get_labeled_images() == [series]
    assert shape_of(again.get_image_uri(series)) == SHAPE
    assert tags_of(again, series) == ["extreme_points", "final"]
    (scan,) = annotated_scans(again, LABELS)
    assert scan.mask_path.name == f"{series}.nii.gz"


def test_removed_series_loses_its_annotations_until_they_are_restored(studies, series, archive):
    studies.get_image_uri(series)
    click(studies, series)
    submit(studies, series)

    studies.remove_image(series)

    assert studies.get_labeled_images() == []
    assert series in studies.list_images()
    restore(next(removals(studies.project, studies.image_folder)))
    assert tags_of(studies, series) == ["extreme_points", "final"]


@pytest.mark.parametrize(("info", "algorithm"), [(None, b"MANUAL"), ({"accepted": {"tumour": {}}}, b"SEMIAUTOMATIC")])
def test_final_mask_is_shared_with_the_archive_which_is_told_whether_a_person_drew_it(
    studies, series, archive, info, algorithm
):
    studies.get_image_uri(series)
    submit(studies, series)
    masks = studies.masks()
    masks.save(series, masks.load(series), replace(masks.record(series), info=info))

    assert studies.share_mask(series) is None
    (stored,) = archive.stored
    assert b"SEG" in stored and algorithm in stored


def test_empty_mask_is_kept_and_not_shared(studies, series, archive):
    studies.get_image_uri(series)
    submit(studies, series, value=0)

    assert studies.share_mask(series) is None
    assert archive.stored == []
    assert studies.get_labeled_images() == [series]


def test_mask_that_cannot_be_shared_is_kept_and_the_reason_told(studies, series, archive, monkeypatch):
    studies.get_image_uri(series)
    path = submit(studies, series)
    monkeypatch.setattr(dicomweb.Handler, "do_POST", lambda handler: handler.send(500, b"full"))

    sentence = studies.share_mask(series)

    assert sentence.startswith("The mask is stored on the server, but not in the archive. The DICOMweb archive ")
    assert path.exists()


@pytest.mark.parametrize(
    "element",
    [
        {"00101030": {"vr": "DS", "Value": ["heavy"]}},
        {"00081115": {"vr": "SQ", "Value": ["no item"]}},
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": 5}]}},
    ],
    ids=str,
)
def test_element_that_cannot_be_read_does_not_keep_a_mask_from_the_archive(studies, series, archive, element):
    studies.get_image_uri(series)
    submit(studies, series)
    archive.odd = element

    assert studies.share_mask(series) is None
    assert len(archive.stored) == 1


@pytest.mark.parametrize("metadata", [b"[{}]", b"[7]", b"null", b"<html>", b'[{"0020000E": 7}]'])
def test_odd_headers_are_a_reason_too(studies, series, archive, monkeypatch, metadata):
    studies.get_image_uri(series)
    submit(studies, series)
    get = dicomweb.Handler.do_GET

    def odd(handler):
        return handler.send(200, metadata, "application/dicom+json") if "/metadata" in handler.path else get(handler)

    monkeypatch.setattr(dicomweb.Handler, "do_GET", odd)

    assert studies.share_mask(series).startswith("The mask is stored on the server, but not in the archive.")
