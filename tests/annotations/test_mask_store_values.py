"""Values and labels of stored masks: mapped to the labels of the app by name, and checked once."""

import gzip
import json
import os
import shutil
import time

import nibabel as nib
import numpy as np
import pytest

from lib.annotations import mask_store
from lib.annotations.mask_file import MaskError, MaskRecord
from lib.geometry.volume import Volume, load_volume
from tests.annotations.test_mask_store import (
    AFFINE,
    BOTH,
    BY_HAND,
    GEOMETRY,
    TUMOUR,
    mask,
    open_store,
    put_by_hand,
    store,
)

__all__ = ["open_store", "store"]  # fixtures


def by_label(store, image_id="scan"):
    """Where each label of the app is, as a set of voxels."""
    array = store.load(image_id).array
    return {label: set(map(tuple, np.argwhere(array == v))) for v, label in enumerate(store.labels, start=1)}


def voxels(volume, value):
    return set(map(tuple, np.argwhere(volume.array == value)))


# Labels by name


@pytest.mark.parametrize(
    "labels",
    [("tumour", "cyst"), ("cyst", "tumour"), ("liver", "cyst", "tumour"), ("tumour", "liver", "cyst"), ("cyst",)],
)
def test_a_label_stays_what_it_is_whatever_the_app_s_order(open_store, labels):
    drawn = mask(value=2)
    open_store().save("scan", drawn, BOTH)
    store = open_store(labels)

    found = by_label(store)

    assert found["cyst"] == voxels(drawn, 2)
    assert all(found[label] == set() for label in labels if label != "cyst")
    np.testing.assert_array_equal(load_volume(store.app_path("scan")).array, store.load("scan").array)


def test_stored_file_is_never_changed_by_reading_it(open_store):
    path = open_store().save("scan", mask(value=2), BOTH)
    before = path.read_bytes()

    open_store(("cyst", "tumour")).app_path("scan")

    assert path.read_bytes() == before
    assert open_store().app_path("scan") == path


def test_label_that_the_app_no_longer_has_is_named(open_store):
    open_store().save("scan", mask(value=2), BOTH)
    store = open_store(("tumour",))

    for read in (store.load, store.app_path, store.checked):
        with pytest.raises(MaskError, match="holds the label 'cyst', and this app has tumour; start the server with a"):
            read("scan")


def test_label_without_voxels_may_be_gone(open_store):
    open_store().save("scan", mask(value=1), BOTH)
    store = open_store(("tumour",))

    assert by_label(store) == {"tumour": voxels(mask(), 1)}
    assert load_volume(store.app_path("scan")).array.any()


@BY_HAND
def test_mask_put_in_by_hand_has_the_labels_that_the_project_began_with(open_store, name):
    put_by_hand(open_store(), mask(value=2), name)

    assert by_label(open_store(("cyst", "tumour", "liver")))["cyst"] == voxels(mask(value=2), 2)
    assert by_label(open_store())["cyst"] == voxels(mask(value=2), 2)


def test_value_that_no_label_has_is_named(store):
    put_by_hand(store, mask(value=7))

    with pytest.raises(MaskError, match="scan.nii.gz holds the value 7; expected 0, 1 for tumour, 2 for cyst"):
        store.load("scan")


def test_other_notes_in_the_header_are_no_record(store):
    image = nib.Nifti1Image(mask(value=2).array, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"drawn with another program"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, json.dumps({"kind": "other", "labels": 7}).encode()))
    store.folder.mkdir(parents=True)
    nib.save(image, store.folder / "scan.nii.gz")

    assert store.record("scan").labels == {"tumour": 1, "cyst": 2}
    assert by_label(store)["cyst"] == voxels(mask(value=2), 2)


# Checked without reading voxels


@pytest.fixture
def reads(monkeypatch):
    """The names of the files whose voxels were read, in order."""
    names = []

    def noted(path, **options):
        names.append(path.name)
        return load_volume(path, **options)

    monkeypatch.setattr(mask_store, "load_volume", noted)
    return names


def test_stored_mask_is_known_without_reading_its_voxels(store, reads):
    record = MaskRecord({"tumour": 1, "cyst": 2}, "reader 1", "2024-05-01T10:00:00+00:00", "sha256:abc", {})
    path = store.save("scan", mask(value=2), record)

    checked = store.checked("scan")

    assert checked.path == path
    assert checked.record == record
    assert checked.geometry.is_close(GEOMETRY)
    assert reads == []


@BY_HAND
def test_mask_put_in_by_hand_is_read_once(open_store, reads, name):
    path = put_by_hand(open_store(), mask(value=2), name)

    found = [open_store().checked("scan") for _ in range(3)]

    assert {one.path for one in found} == {path}
    assert all(one.record.labels == {"tumour": 1, "cyst": 2} for one in found)
    assert all(one.geometry.is_close(GEOMETRY) for one in found)
    assert reads == [name]


def test_mask_of_before_the_checks_were_kept_is_read_once(store, reads):
    store.save("scan", mask(), TUMOUR)
    shutil.rmtree(store.mapped)

    assert len({store.checked("scan").path for _ in range(3)}) == 1
    assert reads == ["scan.nii.gz"]


def test_mask_that_was_edited_is_checked_again(store, reads):
    """Also of the same size and time, and though other programs keep the names of the labels in the header."""
    stored = store.save("scan", mask(), TUMOUR)
    path = store.folder / "scan.nii"
    path.write_bytes(gzip.decompress(stored.read_bytes()))
    stored.unlink()
    assert store.checked("scan").record.labels == {"tumour": 1}
    content, before = path.read_bytes(), path.stat()

    path.write_bytes(content[:-1] + b"\5")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(MaskError, match="scan.nii holds the value 5; expected 0, 1 for tumour"):
        store.checked("scan")
    assert reads == ["scan.nii"] * 2


def test_newer_file_beside_the_stored_one_is_checked(store, reads):
    store.save("scan", mask(), TUMOUR)
    path = put_by_hand(store, mask(value=7), "scan.nii")
    os.utime(path, ns=(time.time_ns() + 10**9,) * 2)

    with pytest.raises(MaskError, match="scan.nii holds the value 7"):
        store.checked("scan")
    assert reads == ["scan.nii"]


def test_mask_with_other_values_is_copied_once_for_each_order_of_the_labels(open_store, reads):
    open_store().save("scan", mask(value=2), BOTH)

    copies = {}
    for labels in [("cyst", "tumour"), ("liver", "tumour", "cyst"), ("cyst", "tumour")]:
        checked = open_store(labels).checked("scan")
        copies[labels] = checked.path
        assert checked.record.labels == {"tumour": 1, "cyst": 2}
        assert voxels(load_volume(checked.path), labels.index("cyst") + 1) == voxels(mask(), 1)

    assert len(set(copies.values())) == 2
    assert reads == ["scan.nii.gz"] * 2


def test_new_mask_gets_a_copy_of_its_own(open_store):
    store = open_store(("cyst", "tumour"))
    for seed in range(2):
        open_store().save("scan", mask(value=2, seed=seed), BOTH)
        assert voxels(load_volume(store.checked("scan").path), 1) == voxels(mask(seed=seed), 1)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"{}", b"\xff", b"[" * 5000, b'{"file": "scan.nii.gz", "stamp": null}']
)
def test_damaged_note_of_a_check_is_made_anew(store, reads, content):
    store.save("scan", mask(value=1), TUMOUR)
    (note,) = store.mapped_files("scan")
    note.write_bytes(content)

    for _ in range(2):
        store.checked("scan")

    assert reads == ["scan.nii.gz"]


def test_mask_is_stored_and_checked_where_the_note_of_it_cannot_be_written(store, monkeypatch, caplog):
    store.mapped.write_bytes(b"a file where the folder should be")

    store.save("scan", mask(), TUMOUR)

    assert store.checked("scan").record.labels == {"tumour": 1}
    assert "scan.nii.gz is not recorded on disk" in caplog.text


def test_value_that_no_label_has_is_not_stored(store):
    for array in (mask(value=3), Volume(mask().array * np.float32(0.5), GEOMETRY)):
        with pytest.raises(MaskError, match="expected 0, 1 for tumour"):
            store.save("scan", array, TUMOUR)

    assert store.path("scan") is None


def test_all_that_is_kept_beside_a_mask_is_told(open_store):
    for image_id in ("scan", "scan.values", "[s]can"):
        open_store().save(image_id, mask(value=2), BOTH)
        open_store(("cyst", "tumour")).checked(image_id)

    told = {image_id: set(open_store().mapped_files(image_id)) for image_id in ("scan", "scan.values", "[s]can")}

    assert [len(files) for files in told.values()] == [2, 2, 2]
    assert set.union(*told.values()) == set(open_store().mapped.iterdir())
