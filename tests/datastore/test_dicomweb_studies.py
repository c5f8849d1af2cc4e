"""A DICOMweb archive that breaks off, is slow, or is asked by many at once; the studies made from it stay whole."""

import threading

import nibabel as nib
import numpy as np
import pytest
import requests
from fastapi import HTTPException

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.geometry import ImageGeometry
from lib.annotations.store import Annotation, AnnotationStore
from lib.annotations.volume import load_volume
from lib.datastore.dicomweb import DICOMWebStudies
from lib.demo.dicom import dicom_series
from lib.trainers.annotated_scans import annotated_scans

# The watcher of the folder follows a fetched series as it is renamed into place, and warns that it does.
pytestmark = pytest.mark.filterwarnings("ignore:Callback with id")

SHAPE = (10, 9, 8)
AFFINE_RAS = np.array([[-0.7, 0, 0, 20], [0, -0.9, 0, -30], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
PATIENCE_S = 20
CLICKS = np.array([[1, 4, 4], [8, 4, 4], [4, 1, 4], [4, 7, 4], [4, 4, 1], [4, 4, 6]])


class Archive:
    """What an archive's client offers, from memory; `breaks_after` instances the connection is lost."""

    base_url = "http://archive.test/dicom-web"

    def __init__(self):
        self.breaks_after = None
        self.fetches = []
        self.before_fetch = lambda series: None
        pixels = np.random.default_rng(0).integers(0, 1000, SHAPE, dtype=np.int16)
        self.series = {}
        for patient in ("one", "two"):
            instances = dicom_series(pixels, AFFINE_RAS, patient)
            self.series[str(instances[0].SeriesInstanceUID)] = instances

    def search_for_series(self, search_filters):
        uid = search_filters.get("SeriesInstanceUID")
        return [
            instances[0].to_json_dict()
            for name, instances in self.series.items()
            if uid in (None, name) and search_filters.get("Modality", "MR") == "MR"
        ]

    def retrieve_series(self, study, series):
        self.fetches.append(series)
        self.before_fetch(series)
        for number, instance in enumerate(self.series[series]):
            self._break(number)
            yield instance

    def retrieve_series_metadata(self, study, series):
        return [
            {tag: value for tag, value in instance.to_json_dict().items() if tag != "7FE00010"}
            for instance in self.series[series]
        ]

    def retrieve_instance_frames(self, study_instance_uid, series_instance_uid, sop_instance_uid, frame_numbers):
        instances = self.series[series_instance_uid]
        number = next(n for n, instance in enumerate(instances) if instance.SOPInstanceUID == sop_instance_uid)
        self._break(number)
        return [instances[number].PixelData]

    def _break(self, number):
        if self.breaks_after is not None and number >= self.breaks_after:
            raise requests.ConnectionError("the archive went away")


@pytest.fixture
def archive():
    return Archive()


@pytest.fixture
def opened(archive, tmp_path):
    """Opens the studies of the archive; their folder is watched until the end of the test."""
    studies = []

    def open_studies(**options):
        studies.append(DICOMWebStudies(archive, {"Modality": "MR"}, cache_path=str(tmp_path), **options))
        return studies[-1]

    yield open_studies
    for opened in studies:
        opened._observer.stop()
        opened._observer.join()


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


def test_images_are_the_series_of_the_archive(studies, archive):
    assert set(studies.list_images()) == set(archive.series)


def test_volume_lies_where_the_series_lies(studies, archive, series):
    volume = load_volume(studies.get_image_uri(series))

    assert volume.geometry.is_close(ImageGeometry(SHAPE, AFFINE_RAS))
    expected = np.stack([instance.pixel_array.T for instance in archive.series[series]], axis=-1)
    np.testing.assert_array_equal(volume.array, expected)


@pytest.mark.parametrize("breaks_after", [0, 1, SHAPE[2] // 2, SHAPE[2] - 1])
def test_series_cut_short_is_an_error_of_the_archive_and_fetched_whole_the_next_time(
    studies, archive, series, breaks_after
):
    archive.breaks_after = breaks_after
    with pytest.raises(HTTPException) as error:
        studies.get_image_uri(series)
    archive.breaks_after = None

    assert error.value.status_code == 502
    assert archive.base_url in error.value.detail
    assert load_volume(studies.get_image_uri(series)).array.shape == SHAPE


def test_series_cut_short_is_not_taken_whole_after_a_restart(studies, archive, series, opened):
    archive.breaks_after = SHAPE[2] - 1
    with pytest.raises(HTTPException):
        studies.get_image_uri(series)
    archive.breaks_after = None

    assert load_volume(opened().get_image_uri(series)).array.shape == SHAPE


def test_failed_fetch_leaves_nothing_that_looks_like_an_image(studies, archive, series, tmp_path):
    archive.breaks_after = SHAPE[2] - 1
    with pytest.raises(HTTPException):
        studies.get_image_uri(series)

    assert not list(tmp_path.rglob("*.nii.gz"))
    assert not list(tmp_path.rglob("*.dcm"))


def test_series_is_read_frame_by_frame_where_the_user_says_so(opened, archive, series):
    assert load_volume(opened(fetch_by_frame=True).get_image_uri(series)).array.shape == SHAPE


@pytest.mark.parametrize("breaks_after", [SHAPE[2] // 2, SHAPE[2] - 1])
def test_series_cut_short_frame_by_frame_is_not_taken_whole(opened, archive, series, breaks_after):
    studies = opened(fetch_by_frame=True)
    archive.breaks_after = breaks_after

    with pytest.raises(HTTPException) as error:
        studies.get_image_uri(series)

    assert error.value.status_code == 502


def test_many_who_ask_for_one_series_fetch_it_once(studies, archive, series):
    everybody_asked = threading.Event()
    archive.before_fetch = lambda series: everybody_asked.wait(0.3)

    found = in_threads(*[lambda: studies.get_image_uri(series)] * 6)

    assert len(set(found)) == 1
    assert load_volume(found[0]).array.shape == SHAPE
    assert archive.fetches == [series]


def test_series_that_is_there_is_not_fetched_again(studies, archive, series, opened):
    first = studies.get_image_uri(series)

    assert studies.get_image_uri(series) == opened().get_image_uri(series) == first
    assert archive.fetches == [series]


def test_two_series_are_fetched_at_the_same_time(studies, archive):
    together = threading.Barrier(2)
    archive.before_fetch = lambda series: together.wait(PATIENCE_S / 2)

    found = in_threads(*[lambda name=name: studies.get_image_uri(name) for name in archive.series])

    assert [load_volume(path).array.shape for path in found] == [SHAPE] * 2


def test_slow_archive_keeps_nobody_from_the_index(studies, archive, series):
    fetching, go_on = threading.Event(), threading.Event()

    def wait(name):
        fetching.set()
        go_on.wait(PATIENCE_S)

    archive.before_fetch = wait
    slow = threading.Thread(target=studies.get_image_uri, args=(series,), daemon=True)
    slow.start()
    fetching.wait(PATIENCE_S)
    try:
        in_threads(
            studies.refresh,
            studies.list_images,
            studies.get_labeled_images,
            lambda: studies.list_annotation(series, f"{series}.lesion.json", {}),
        )
        assert slow.is_alive()
    finally:
        go_on.set()
        slow.join(PATIENCE_S)


def test_unknown_series_is_not_found(studies):
    with pytest.raises(HTTPException) as error:
        studies.get_image_uri("1.2.3")

    assert error.value.status_code == 404
    assert "'1.2.3'" in error.value.detail


@pytest.mark.parametrize("image", ["../{}/stranger", "{}/stranger", "/etc/hostname"])
def test_no_file_outside_the_cache_is_reached(studies, tmp_path, image):
    (tmp_path / "stranger.nii.gz").write_bytes(b"not for everybody")

    with pytest.raises(HTTPException) as error:
        studies.get_image_uri(image.format(tmp_path))

    assert error.value.status_code == 404


def test_clicks_in_the_cache_folder_make_a_series_annotated(studies, series, opened):
    other = next(name for name in studies.list_images() if name != series)
    geometry = load_volume(studies.get_image_uri(series)).geometry
    points = ExtremePoints.from_clicks("lesion", CLICKS)
    path = AnnotationStore(studies.annotation_folder).save(Annotation.now(series, points, geometry, "reader"))
    studies.list_annotation(series, path.name, {"annotator": "reader"})

    for found in (studies, opened()):
        assert found.get_labeled_images() == [series]
        assert found.get_unlabeled_images() == [other]


def test_final_mask_in_the_cache_folder_is_learnt_from(studies, series, opened):
    image = nib.load(studies.get_image_uri(series))
    folder = studies.annotation_folder.with_name("final")
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), image.affine), folder / f"{series}.nii.gz")
    again = opened()

    (scan,) = annotated_scans(again, AnnotationStore(again.annotation_folder), ("lesion",))

    assert scan.mask_path.name == f"{series}.nii.gz"
    assert scan.mask_path.parent.name == "final"
