"""Stored clicks of this image, for labels of the app."""

import numpy as np
import pytest
from fastapi import HTTPException

from lib.annotations.click_requests import ClickRequestError
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Absence, Annotation, AnnotationStore
from lib.geometry.image_geometry import ImageGeometry
from lib.infers.stored_clicks import asks_for_stored_clicks, stored_clicks

GEOMETRY = ImageGeometry((10, 9, 8), np.diag([0.7, 0.9, 2.5, 1.0]))
CLICKS = np.array([[1, 4, 4], [8, 4, 4], [4, 1, 4], [4, 7, 4], [4, 4, 1], [4, 4, 6]])
LABELS = ("tumour", "cyst")
REQUEST = {"image_id": "scan", "use_stored_clicks": True}


@pytest.fixture
def store(tmp_path):
    return AnnotationStore(tmp_path)


def save(store, label="tumour", image_id="scan", geometry=GEOMETRY, checksum="sha256:a"):
    points = ExtremePoints.from_clicks(label, CLICKS, np.array([[0, 0, 0]]))
    return store.save(Annotation.now(image_id, points, geometry, "reader", checksum))


def save_absence(store, label="cyst", geometry=GEOMETRY):
    return store.save(Absence.now("scan", label, geometry, "reader", "sha256:a"))


def labels_of(store, geometry=GEOMETRY, checksum="sha256:a", labels=LABELS, **request):
    answers = stored_clicks(REQUEST | request, store, labels, geometry, checksum)
    return [points.label for points in answers.structures]


@pytest.mark.parametrize(
    ("request_params", "asks"),
    [({"use_stored_clicks": True}, True), ({"use_stored_clicks": False}, False), ({}, False)],
)
def test_request_for_stored_clicks(request_params, asks):
    assert asks_for_stored_clicks(request_params) is asks


def test_stored_clicks_are_returned(store):
    save(store)

    (points,) = stored_clicks(REQUEST, store, LABELS, GEOMETRY, "sha256:a").structures

    np.testing.assert_array_equal(points.foreground_voxel, CLICKS)
    np.testing.assert_array_equal(points.background_voxel, [[0, 0, 0]])


def test_structures_have_the_order_of_the_app_and_others_are_ignored(store):
    for label in ("cyst", "vessel", "tumour"):
        save(store, label)

    assert labels_of(store) == ["tumour", "cyst"]


@pytest.mark.parametrize(("clicked", "absent"), [(["tumour"], ["cyst"]), ([], ["tumour", "cyst"]), ([], ["cyst"])])
def test_absent_labels_are_returned(store, clicked, absent):
    for label in clicked:
        save(store, label)
    for label in (*absent, "vessel"):
        save_absence(store, label)

    answers = stored_clicks(REQUEST, store, LABELS, GEOMETRY, "sha256:a")

    assert [points.label for points in answers.structures] == clicked
    assert list(answers.absent) == absent


@pytest.mark.parametrize("image_id", ["other", "", None])
def test_image_without_clicks(store, image_id):
    save(store)

    with pytest.raises(HTTPException) as error:
        labels_of(store, image_id=image_id)
    assert error.value.status_code == 404


def test_clicks_for_a_removed_label_are_ignored(store):
    save(store, "vessel")

    with pytest.raises(HTTPException):
        labels_of(store)


OTHER_GRIDS = {
    "size": ImageGeometry((10, 9, 7), GEOMETRY.affine_ras),
    "spacing": ImageGeometry(GEOMETRY.shape, GEOMETRY.affine_ras * [2, 1, 1, 1]),
    "flipped": ImageGeometry(GEOMETRY.shape, GEOMETRY.affine_ras * [-1, 1, 1, 1]),
}


@pytest.mark.parametrize("geometry", OTHER_GRIDS.values(), ids=OTHER_GRIDS)
@pytest.mark.parametrize(("answer", "label"), [(save, "tumour"), (save_absence, "cyst")])
def test_answers_for_another_grid_are_refused(store, geometry, answer, label):
    answer(store)

    with pytest.raises(
        ClickRequestError, match=f"'{label}': the image is not the one that was clicked on. Click it again"
    ):
        labels_of(store, geometry=geometry)


def test_clicks_on_other_voxels_of_the_same_grid_are_refused(store):
    path = save(store)

    with pytest.raises(ClickRequestError, match="the image is not the one that was clicked on"):
        labels_of(store, checksum="sha256:b")
    assert path.exists()


@pytest.mark.parametrize(("stored", "now"), [(None, "sha256:a"), ("sha256:a", None), (None, None)])
def test_clicks_without_a_known_checksum_are_returned(store, stored, now):
    save(store, checksum=stored)

    assert labels_of(store, checksum=now) == ["tumour"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 5000])
def test_damaged_clicks_are_refused(store, content):
    save(store).write_bytes(content)

    with pytest.raises(ClickRequestError, match="scan.tumour.json .*Click the structure again"):
        labels_of(store)


@pytest.mark.parametrize(
    "clicks",
    [
        {"tumour": CLICKS.tolist()},
        {"foreground": [[1, 1, 1]]},
        {"background": [[1, 1, 1]]},
        {"absent": ["cyst"]},
    ],
)
def test_request_with_clicks_and_for_stored_ones_is_refused(store, clicks):
    save(store)

    with pytest.raises(ClickRequestError, match="has clicks and asks for the stored ones; leave out either"):
        labels_of(store, **clicks)
