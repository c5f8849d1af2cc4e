"""Masks that were given: read back as they were, one for each image, label and annotator, and small."""

import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.given_masks import GivenMask, GivenMaskError, GivenMaskStore, clicks_digest

CLICKS = np.array([[1, 4, 4], [8, 4, 4], [4, 1, 4], [4, 7, 4], [4, 4, 1], [4, 4, 6]])
GIVEN = "2026-01-01T10:00:00.000+00:00"


@pytest.fixture
def store(tmp_path):
    return GivenMaskStore(tmp_path / "given")


def given(mask=None, clicks="digest", version=None, start=(2, 0, 3)):
    mask = np.random.default_rng(0).random((5, 4, 3)) < 0.5 if mask is None else mask
    return GivenMask(clicks, start, mask, GIVEN, version)


def keep(store, image_id="scan", label="tumour", annotator="reader", mask=None, new_clicks=True):
    store.keep(image_id, label, annotator, mask or given(), new_clicks=new_clicks)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 4, 3), (8, 8, 8), (7, 3, 1)])
@pytest.mark.parametrize("version", [None, 7])
def test_mask_comes_back_as_it_was_given(store, shape, version):
    mask = np.random.default_rng(1).random(shape) < 0.5
    keep(store, mask=given(mask, version=version))

    found = store.load("scan", "tumour", "reader")

    np.testing.assert_array_equal(found.mask, mask)
    assert (found.clicks, found.start_voxel, found.given, found.model_version) == ("digest", (2, 0, 3), GIVEN, version)


def test_it_is_drawn_where_it_lies_in_the_image():
    label_map = np.ones((9, 9, 9), np.uint8)

    given(start=(2, 0, 3)).draw(label_map, 2)

    assert set(map(tuple, np.argwhere(label_map == 2))) == {
        (i + 2, j, k + 3) for i, j, k in np.argwhere(given().mask).tolist()
    }


def test_last_mask_replaces_the_one_before(store):
    keep(store, mask=given(clicks="first"))
    keep(store, mask=given(clicks="second"))

    assert store.load("scan", "tumour", "reader").clicks == "second"
    assert len(store.files("scan")) == 1


def test_each_image_label_and_annotator_has_its_own(store):
    names = [("scan", "tumour"), ("scan", "cyst"), ("scan.01", "tumour"), ("[s]can", "tumour")]
    for image_id, label in names:
        for annotator in ("reader", "other", "../reader"):
            keep(store, image_id, label, annotator, given(clicks=f"{image_id} {label} {annotator}"), new_clicks=False)

    for image_id, label in names:
        assert len(store.files(image_id, label)) == 3
        for annotator in ("reader", "other", "../reader"):
            assert store.load(image_id, label, annotator).clicks == f"{image_id} {label} {annotator}"
    assert (len(store.files("scan")), len(store.files("scan.01"))) == (6, 3)
    assert {path.parent for path in store.folder.rglob("*.mask")} == {store.folder}


def test_new_clicks_drop_what_others_were_given_for_the_clicks_before(store):
    keep(store, annotator="other")
    keep(store, annotator="other", label="cyst")

    keep(store, annotator="reader")

    with pytest.raises(FileNotFoundError):
        store.load("scan", "tumour", "other")
    assert store.load("scan", "cyst", "other").clicks == "digest"


def test_nothing_was_given(store):
    assert store.files("scan") == []
    with pytest.raises(FileNotFoundError):
        store.load("scan", "tumour", "reader")


@pytest.mark.parametrize(("image_id", "label"), [("../scan", "tumour"), ("scan", "../tumour"), ("", "tumour")])
def test_files_stay_in_the_folder(store, tmp_path, image_id, label):
    with pytest.raises(ValueError, match=r"image id|label"):
        keep(store, image_id, label)

    assert list(tmp_path.rglob("*.mask")) == []


def test_file_of_a_large_mask_is_small(store):
    axes = np.ogrid[-1:1:200j, -1:1:200j, -1:1:200j]
    keep(store, mask=given(sum(axis**2 for axis in axes) < 0.9))

    assert store.files("scan")[0].stat().st_size < 200**3 / 50


DAMAGES = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[:-3],
    "another byte": lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:],
    "no mask": lambda content: b"this is no mask",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_file_is_said_in_a_sentence(store, damage):
    keep(store)
    (path,) = store.files("scan")
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(GivenMaskError, match=r"^The stored mask of label 'tumour' cannot be read\.$"):
        store.load("scan", "tumour", "reader")


def test_full_disk_leaves_the_file_before(store, failing):
    keep(store, mask=given(clicks="first"))
    with failing("replace"), pytest.raises(OSError, match="No space"):
        keep(store, mask=given(clicks="second"))

    assert store.load("scan", "tumour", "reader").clicks == "first"
    assert len(list(store.folder.iterdir())) == 1


def test_digest_tells_clicks_apart_by_voxel_kind_label_and_image():
    points = ExtremePoints.from_clicks("tumour", CLICKS)
    others = [
        (ExtremePoints.from_clicks("tumour", CLICKS + [1, 0, 0]), "sum"),
        (ExtremePoints.from_clicks("tumour", np.concatenate([CLICKS, [[4, 4, 4]]])), "sum"),
        (ExtremePoints.from_clicks("tumour", CLICKS, np.array([[4, 4, 4]])), "sum"),
        (ExtremePoints.from_clicks("cyst", CLICKS), "sum"),
        (points, "another sum"),
    ]

    digests = {clicks_digest(*other) for other in others}

    assert len(digests) == len(others)
    assert clicks_digest(points, "sum") not in digests
    assert clicks_digest(ExtremePoints.from_clicks("tumour", CLICKS.copy()), "sum") == clicks_digest(points, "sum")
