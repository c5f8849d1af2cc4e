"""The series of an archive over real HTTP: found whole, fetched once and whole, told in sentences where that fails."""

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
from lib.server.archive import archive as archive_requests
from lib.server.archive import archive_listing
from lib.server.archive.archive import Archive
from lib.server.project import Project, open_project
from lib.server.studies.archive_studies import ArchiveStudies
from lib.server.studies.removal import removals, restore
from lib.trainers.annotated_scans import annotated_scans
from tests.exchange.answering import self_signed_certificate
from tests.server.archive import dicomweb
from tests.server.archive.dicomweb import FakeDICOMweb, instances, served
from tests.server.failures import refusal, small_disk
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
    archive = FakeDICOMweb()
    archive.add("one")
    archive.add("two")
    return archive


@pytest.fixture
def address(archive):
    with served(archive) as address:
        yield address


@pytest.fixture
def opened(address, tmp_path):
    """Opens the studies of the archive, or of one at another address."""

    def open_studies(address=address, login=None, search_filter=None, fetch_by_frame=False):
        project = Project(tmp_path / "project")
        client = Archive(address, login, {"Modality": "MR"} if search_filter is None else search_filter, fetch_by_frame)
        return ArchiveStudies(client, tmp_path / "cache", project, open_project(project, LABELS), LABELS)

    return open_studies


@pytest.fixture
def studies(opened):
    return opened()


@pytest.fixture
def series(archive):
    return next(iter(archive.series))


def in_threads(*jobs):
    """Runs jobs at once; their results, or the errors they ended with."""
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


def test_series_of_several_volumes_is_replaced_by_them_when_it_is_opened(studies, archive, series, opened):
    archive.series[series] = two_volumes(archive, series)
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


def test_volume_is_found_again_where_only_the_annotations_are_left(studies, archive, series, opened, tmp_path):
    archive.series[series] = two_volumes(archive, series)
    image = f"{series}_te9.2"
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

    assert sorted(studies.images_at_hand()) == [f"{series}_te4.6", f"{series}_te9.2"]


@pytest.mark.parametrize("name", ["te1", "../../x", "te9.2/..", "", "TE9.2"])
def test_volume_that_a_series_does_not_hold_is_404_and_fetched_no_second_time(studies, archive, series, name):
    archive.series[series] = two_volumes(archive, series)
    refusal(studies.get_image_uri, series)

    for _ in range(2):
        assert refusal(studies.get_image_uri, f"{series}_{name}")[0] == 404
    assert archive.fetches() == [series]


def test_mask_of_a_volume_refers_to_its_instances(studies, archive, series):
    archive.series[series] = two_volumes(archive, series)
    image = f"{series}_te9.2"
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


@pytest.mark.parametrize(
    ("search_filter", "searches"),
    [
        ({"Modality": "MR,CT"}, [{"Modality": ["MR"]}, {"Modality": ["CT"]}]),
        ({"Modality": "MR, CT ,PT"}, [{"Modality": ["MR"]}, {"Modality": ["CT"]}, {"Modality": ["PT"]}]),
        ({"Modality": "CT", "PatientID": "7"}, [{"Modality": ["CT"], "PatientID": ["7"]}]),
        ({}, [{}]),
    ],
)
def test_each_modality_is_asked_for_by_itself(opened, archive, search_filter, searches):
    """Orthanc takes "MR,CT" for a list, other archives for a name."""
    opened(search_filter=search_filter).list_images()

    asked = [{k: v for k, v in query.items() if k not in ("limit", "offset")} for query in archive.searches()]
    assert [query for n, query in enumerate(asked) if query not in asked[:n]] == searches


def test_series_of_all_modalities_are_listed(opened, archive):
    ct = archive.add("three", modality="CT")

    assert ct in opened(search_filter={"Modality": "MR,CT"}).list_images()
    assert ct not in opened(search_filter={"Modality": "MR"}).list_images()
    assert ct in opened(search_filter={}).list_images()


@pytest.mark.parametrize("page", [1, 10, 23, 100, None])
@pytest.mark.parametrize("offset", ["kept", "ignored", "refused"])
def test_list_is_complete_where_the_archive_can_tell_it_completely(opened, archive, page, offset):
    for number in range(21):
        archive.add(f"patient {number}", shape=(2, 2, 2))
    archive.page, archive.offset = page, offset

    listed = opened().list_images()

    assert len(set(listed)) == len(listed)
    assert len(listed) == (23 if offset == "kept" else min(page or 23, 23))
    assert len(archive.searches()) < 30


MALFORMED = [
    {},
    {"0020000E": {"vr": "UI"}},
    {"0020000E": {"vr": "UI", "Value": []}},
    {"0020000E": {"vr": "UI", "Value": [""]}},
    {"0020000E": {"vr": "UI", "Value": [".."]}},
    {"0020000E": {"vr": "UI", "Value": ["."]}},
    {"0020000E": {"vr": "UI", "Value": ["../1.2"]}},
    {"0020000E": {"vr": "UI", "Value": ["1.2/3"]}},
    {"0020000E": {"vr": "UI", "Value": ["1..2"]}},
    {"0020000E": {"vr": "UI", "Value": ["1." * 40]}},
    {"0020000E": {"vr": "UI", "Value": ["1.2\n3"]}},
    {"0020000E": {"vr": "UI", "Value": ["1.2", "1.3"]}},
    {"0020000E": {"vr": "UI", "Value": [7]}},
    {"0020000E": {"vr": "SQ", "Value": [{}]}},
    {"0020000E": "1.2"},
    {"0020000E": {"vr": "XX", "Value": ["1.2"]}},
    {"nonsense": 7},
    {"0020000E": {"vr": "UI", "Value": [None]}},
]


@pytest.mark.parametrize("page", [None, 1])
def test_results_without_a_usable_uid_are_left_out(opened, archive, page):
    archive.more = MALFORMED
    archive.page = page

    assert set(archive.series) <= set(opened().list_images())
    assert all(image_id.replace(".", "").isdecimal() for image_id in opened().list_images())


def test_page_of_nothing_usable_does_not_hide_the_next(opened, archive, monkeypatch):
    others = [archive.add(f"patient {number}", shape=(2, 2, 2)) for number in range(3)]
    told = archive.found

    def found(query):
        """As if what cannot be used came first."""
        offset, page = int(query.get("offset", ["0"])[0]), 4
        usable = told({k: v for k, v in query.items() if k not in ("offset", "limit")})
        return (MALFORMED[2:8] + usable)[offset : offset + page]

    archive.found = found

    assert set(others) <= set(opened().list_images())


@pytest.mark.parametrize("count", ["many", "-1", None, 1.5, [1]])
def test_number_of_instances_that_is_none_is_as_if_it_were_not_told(opened, archive, count):
    uid = archive.add("three")
    archive._told, told = (lambda made: told(made) | {"00201209": {"vr": "LO", "Value": [count]}}), archive._told

    assert uid in opened().list_images()


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

    for ask in (studies.get_image_uri, studies.get_image_info, studies.at_hand, studies.remove_image):
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


@pytest.mark.parametrize("cut_in", ["chunks", "length", "closing"])
@pytest.mark.parametrize("breaks_after", [0, 1, DEPTH - 1])
def test_archive_that_hangs_in_the_middle_of_an_answer_is_said_to_hang(
    studies, archive, series, monkeypatch, cut_in, breaks_after
):
    monkeypatch.setattr(archive_requests, "READ_TIMEOUT_S", 0.2)
    archive.cut_in, archive.breaks_after, archive.hang_s = cut_in, breaks_after, 1.0

    code, sentence = refusal(studies.get_image_uri, series)

    assert code == 502
    assert "did not answer in time" in sentence


def test_series_is_read_frame_by_frame_where_the_user_says_so(opened, archive, series):
    studies = opened(fetch_by_frame=True)

    assert shape_of(studies.get_image_uri(series)) == SHAPE
    assert len(archive.asked_for("/frames/1$")) == DEPTH
    assert archive.fetches() == []


@pytest.mark.parametrize("accepts", [{"*"}, {"1.2.840.10008.1.2.1"}, {"*", "1.2.840.10008.1.2.1"}])
def test_instances_are_asked_for_as_they_are_stored_or_else_uncompressed(studies, archive, series, accepts):
    archive.accepts = accepts

    assert shape_of(studies.get_image_uri(series)) == SHAPE


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


def test_series_that_grew_is_fetched_anew(studies, archive, series, opened):
    """It was opened while it arrived."""
    whole = archive.series[series]
    archive.series[series] = whole[:5]
    assert shape_of(studies.get_image_uri(series)) == (*SHAPE[:2], 5)

    archive.series[series] = whole

    for found in (studies, opened()):
        assert shape_of(found.get_image_uri(series)) == SHAPE
    assert archive.fetches() == [series] * 2


def test_series_that_was_deleted_and_sent_anew_is_fetched_anew(studies, archive, series):
    """Of as many instances as before, under the same UID."""
    before = archive.series[series]
    first = load_volume(studies.get_image_uri(series)).array
    archive.series[series] = []
    archive.series.pop(series)
    assert series not in studies.list_images()

    for instance in before:
        instance.PixelData = bytes(reversed(instance.PixelData))
    archive.series[series] = before

    assert series in studies.list_images()
    assert (load_volume(studies.get_image_uri(series)).array != first).any()


def test_volume_that_was_damaged_in_the_cache_is_fetched_anew(studies, archive, series):
    path = Path(studies.get_image_uri(series))
    path.write_bytes(path.read_bytes()[:100])

    assert shape_of(studies.get_image_uri(series)) == SHAPE


@pytest.mark.parametrize("tag", ["0020000D", "00100020"], ids=["study", "patient"])
def test_uid_of_two_series_is_left_out(studies, archive, series, tag, caplog):
    """Nobody could tell whose voxels, headers and clicks are meant."""
    other = archive._told(archive.series[series])
    other[tag] = {"vr": "UI" if tag == "0020000D" else "LO", "Value": ["1.2.3"]}
    archive.more = [other]

    assert studies.list_images() == [uid for uid in archive.series if uid != series]
    assert f"{series} is in several studies or of several patients" in caplog.text


def test_clicks_on_a_series_do_not_count_for_what_it_grew_to(studies, archive, series):
    whole = archive.series[series]
    archive.series[series] = whole[:7]
    studies.get_image_uri(series)
    click(studies, series)
    assert studies.get_labeled_images() == [series]

    archive.series[series] = whole
    studies.get_image_uri(series)

    assert studies.get_labeled_images() == []


def test_series_that_left_the_archive_is_gone(studies, archive, series):
    studies.get_image_uri(series)
    click(studies, series)
    del archive.series[series]
    studies.list_images()

    assert series not in studies.list_images()
    assert refusal(studies.get_image_uri, series)[0] == 404
    assert studies.clicks.paths_of(series)


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


def test_archive_that_hangs_holds_up_nobody_who_needs_what_is_there(studies, archive, series, monkeypatch):
    monkeypatch.setattr(archive_listing, "PATIENCE_S", 0.8)
    studies.get_image_uri(series)
    go_on = threading.Event()
    archive.before = lambda path: go_on.wait(PATIENCE_S)
    try:
        for ask in (studies.list_images, studies.status, lambda: studies.get_image_uri(series)):
            begin = time.monotonic()
            assert ask()
            assert time.monotonic() - begin < 1.5
    finally:
        go_on.set()


def test_archive_that_has_never_answered_is_a_502(opened, tmp_path):
    studies = opened("http://127.0.0.1:9/dicom-web")

    assert refusal(studies.list_images)[0] == 502


# What archives answer


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((500, {}, b"Traceback: /opt/archive.py"), "answered 500; its log says more."),
        ((404, {}, b"not here"), "answered 404; its log says more."),
        ((401, {}, b""), "refuses the login; start the server with the right MONAI_LABEL_DICOMWEB_USERNAME"),
        ((403, {}, b""), "refuses the login; start the server with the right MONAI_LABEL_DICOMWEB_USERNAME"),
        ((200, {"content_type": "text/html"}, b"<html>Please log in</html>"), "does not answer as it should"),
        ((200, {"content_type": "application/dicom+json"}, b"[{"), "does not answer as it should"),
        ((200, {"content_type": "application/dicom+json"}, b"null"), "does not answer as it should"),
        ((200, {"content_type": "application/dicom+json"}, b"7"), "does not answer as it should"),
        ((200, {"content_type": "application/dicom+json"}, b'["a"]'), "does not answer as it should"),
        ((200, {"content_type": "application/dicom+json"}, b"\xff\xfe"), "does not answer as it should"),
        ((302, {"Location": "/dicom-web/series"}, b""), "does not answer as it should"),
        ((302, {"Location": "http://127.0.0.1:9/login"}, b""), "does not answer as it should"),
    ],
)
def test_answer_that_is_no_list_is_said_in_a_sentence_without_login_or_content(opened, archive, answer, sentence):
    archive.answer = answer
    studies = opened(login=("reader", "very secret"))

    code, told = refusal(studies.list_images)

    assert code == 502
    assert told.startswith(f"The DICOMweb archive {studies.archive.url} ")
    assert sentence in told
    assert "very secret" not in told and "<html" not in told and "Traceback" not in told


@pytest.mark.parametrize("login", [None, ("reader", "wrong"), ("other", "very secret")])
def test_wrong_login_is_said_without_it_and_the_right_one_is_sent(opened, archive, series, login):
    archive.login = ("reader", "very secret")

    code, sentence = refusal(opened(login=login).list_images)

    assert code == 502
    assert "refuses the login" in sentence
    assert "secret" not in sentence and "wrong" not in sentence
    assert shape_of(opened(login=archive.login).get_image_uri(series)) == SHAPE


def test_login_does_not_follow_a_redirect_to_another_host(opened, archive):
    thief, seen = FakeDICOMweb(), []
    with served(thief) as elsewhere:
        thief.login = ("any", "any")  # so that it looks at the header
        thief.before = lambda path: seen.append(path)
        archive.answer = (302, {"Location": elsewhere.replace("127.0.0.1", "localhost") + "/series"}, b"")
        refusal(opened(login=("any", "any")).list_images)

    assert seen == ["/dicom-web/series"]


def test_certificate_that_is_not_trusted_is_said(opened, archive, tmp_path):
    with served(archive, certificate=[self_signed_certificate(tmp_path / "certificate.pem")]) as address:
        code, sentence = refusal(opened(address).list_images)

    assert code == 502
    assert sentence == (
        f"The DICOMweb archive {address} has a certificate that is not trusted; name its issuer's file in "
        "REQUESTS_CA_BUNDLE."
    )


def test_archive_on_this_machine_is_asked_without_a_proxy(opened, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert len(opened().list_images()) == 2


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"", b"no parts"])
def test_fetch_that_is_answered_by_something_else_is_an_error_of_the_archive(
    studies, archive, series, monkeypatch, body
):
    monkeypatch.setattr(
        "tests.server.archive.dicomweb.Handler._fetch", lambda handler, made: handler.send(200, body, "text/html")
    )

    code, sentence = refusal(studies.get_image_uri, series)

    assert code == 502
    assert "html" not in sentence


# Annotations


def test_annotations_make_a_series_annotated(studies, archive, series, opened):
    other = next(uid for uid in archive.series if uid != series)
    for uid in archive.series:
        studies.get_image_uri(uid)
    click(studies, series)

    for found in (studies, opened()):
        assert found.get_labeled_images() == [series]
        assert found.get_unlabeled_images() == [other]


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
