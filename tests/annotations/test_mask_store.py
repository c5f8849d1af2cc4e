"""Masks on disk: whole at every moment, with the names of their labels in them, and with what was there before."""

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.annotations import mask_store
from lib.annotations.mask_file import MaskError, MaskRecord, encoded_mask
from lib.annotations.mask_store import MaskStore
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, load_volume

SHAPE = (12, 10, 8)
AFFINE = np.array([[0, -0.5, 0, 40], [0.6, 0, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
GEOMETRY = ImageGeometry(SHAPE, AFFINE)
LABELS = ("tumour", "cyst")
TUMOUR, BOTH = MaskRecord({"tumour": 1}), MaskRecord({"tumour": 1, "cyst": 2})
BY_HAND = pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii", "scan.nrrd"])


def mask(value=1, shape=SHAPE, seed=0):
    array = np.zeros(shape, np.uint8)
    array[2:6, 3:7, 1 + seed % 5] = value
    return Volume(array, ImageGeometry(shape, AFFINE))


def by_label(store, image_id="scan"):
    """Where each label of the app is, as a set of voxels."""
    array = store.load(image_id).array
    return {label: set(map(tuple, np.argwhere(array == v))) for v, label in enumerate(store.labels, start=1)}


def voxels(volume, value):
    return set(map(tuple, np.argwhere(volume.array == value)))


@pytest.fixture
def open_store(tmp_path):
    """A store of masks for an app with these labels."""

    def opened(labels=LABELS, began_with=LABELS):
        return MaskStore(tmp_path / "labels" / "final", labels, tmp_path / "mapped", began_with)

    return opened


@pytest.fixture
def store(open_store):
    return open_store()


def put_by_hand(store, volume, name="scan.nii.gz"):
    store.folder.mkdir(parents=True, exist_ok=True)
    path = store.folder / name.replace(".nrrd", ".nii.gz")
    image = nib.Nifti1Image(volume.array, volume.geometry.affine_ras)
    image.set_sform(volume.geometry.affine_ras, code=1)
    nib.save(image, path)
    if name.endswith(".nrrd"):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(store.folder / name))
        path.unlink()
    return store.folder / name


# What was stored is read back


def test_mask_lies_where_it_was_drawn(store):
    saved = mask()
    store.save("scan", saved, TUMOUR)

    loaded = store.load("scan")

    np.testing.assert_array_equal(loaded.array, saved.array)
    assert loaded.geometry.is_close(GEOMETRY)


def test_file_is_read_alike_by_others(store):
    path = store.save("scan", mask(), TUMOUR)

    image = sitk.ReadImage(str(path))

    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, mask().array)
    corner_lps = np.array(image.TransformIndexToPhysicalPoint((5, 6, 7)))
    np.testing.assert_allclose(corner_lps, GEOMETRY.voxel_to_lps(np.array([5, 6, 7])), atol=1e-4)


def test_record_is_in_the_file_itself(store, tmp_path):
    info = {"client_id": "reader", "label_info": [{"name": "Müller", "idx": 1}]}
    record = MaskRecord({"tumour": 1, "cyst": 2}, "reader 1", "2024-05-01T10:00:00+00:00", "sha256:abc", info)
    path = store.save("scan", mask(), record)

    moved = MaskStore(tmp_path / "elsewhere", LABELS, tmp_path / "mapped")
    moved.folder.mkdir()
    path.rename(moved.folder / "other.nii.gz")

    assert moved.record("other") == record


def test_record_without_a_time_gets_that_of_its_storing(store):
    store.save("scan", mask(), TUMOUR)

    assert store.record("scan").created.startswith("20")


@pytest.mark.parametrize("image_id", ["scan.01", "Müller 1", "1.2.840", "[MR] a"])
def test_images_have_masks_of_their_own(store, image_id):
    store.save(image_id, mask(seed=1), TUMOUR)
    store.save("scan", mask(seed=2), TUMOUR)

    assert set(store.paths()) == {"scan", image_id}
    np.testing.assert_array_equal(store.load(image_id).array, mask(seed=1).array)


@pytest.mark.parametrize("image_id", ["", "..", "../scan", "a/b", "a\0", ".hidden", "x" * 200])
def test_masks_stay_in_the_folder(store, tmp_path, image_id):
    with pytest.raises(ValueError, match="image id"):
        store.save(image_id, mask(), TUMOUR)

    assert not list(tmp_path.rglob("*.nii.gz"))


def test_image_without_a_mask(store):
    assert set(store.paths()) == set()
    assert store.path("scan") is None
    for ask in (store.load, store.record, store.app_path, store.checked):
        with pytest.raises(FileNotFoundError, match="no mask of 'scan'"):
            ask("scan")


# The mask before


def test_masks_before_stay_in_the_history_oldest_first_and_come_back(store):
    files = [store.save("scan", mask(seed=n), MaskRecord({"tumour": 1}, f"reader {n}")).read_bytes() for n in range(3)]

    assert [path.read_bytes() for path in sorted(store.history_folder("scan").iterdir())] == files[:2]
    assert set(store.paths()) == {"scan"}
    assert store.path("scan").read_bytes() == files[2]
    assert store.record("scan").annotator == "reader 2"
    for n in (1, 0):
        assert store.revert("scan")
        assert store.path("scan").read_bytes() == files[n]
        np.testing.assert_array_equal(store.load("scan").array, mask(seed=n).array)


@BY_HAND
def test_mask_put_in_by_hand_goes_into_the_history_and_comes_back(store, name):
    content = put_by_hand(store, mask(seed=1), name).read_bytes()

    def files():
        return [path.name for path in store.folder.iterdir() if path.is_file() and path.name[0] != "."]

    store.save("scan", mask(seed=2), TUMOUR)
    assert [path.read_bytes() for path in store.history_folder("scan").iterdir()] == [content]
    assert files() == ["scan.nii.gz"]
    np.testing.assert_array_equal(store.load("scan").array, mask(seed=2).array)

    assert store.revert("scan")
    assert files() == [name]
    assert store.path("scan").read_bytes() == content


# Back to the mask before


def test_first_mask_that_is_taken_back_leaves_none_and_stays_in_the_history(store):
    content = store.save("scan", mask(), TUMOUR).read_bytes()

    assert not store.revert("scan")

    assert (store.path("scan"), set(store.paths())) == (None, set())
    assert [kept.read_bytes() for kept in store.history_folder("scan").iterdir()] == [content]
    with pytest.raises(FileNotFoundError, match="no mask of 'scan'"):
        store.revert("scan")


def test_history_of_a_mask_that_was_deleted_does_not_come_back(store):
    """The mask that is taken back replaced none, whatever there was before the deletion."""
    for seed in range(2):
        store.save("scan", mask(seed=seed), TUMOUR)
    store.path("scan").unlink()
    store.save("scan", mask(seed=2), TUMOUR)

    assert not store.revert("scan")
    assert store.path("scan") is None


def test_mask_of_an_earlier_version_has_nothing_to_go_back_to(store):
    put_by_hand(store, mask())

    assert not store.revert("scan")


@pytest.mark.parametrize("replaced", ["../../secret", "*", "", 7, None])
def test_name_in_the_history_leads_nowhere_else(store, tmp_path, replaced):
    secret = tmp_path / "secret.nii.gz"
    secret.write_bytes(b"secret")
    store.save("scan", mask(), TUMOUR)
    store.path("scan").write_bytes(encoded_mask(mask(), MaskRecord({"tumour": 1}, replaced=replaced)))

    assert not store.revert("scan")
    assert secret.read_bytes() == b"secret"


def test_failure_while_a_mask_is_taken_back_leaves_it(store, monkeypatch):
    for seed in range(2):
        store.save("scan", mask(seed=seed), TUMOUR)

    def no_space(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "link", no_space)
        broken.setattr(shutil, "copyfile", no_space)
        with pytest.raises(OSError, match="No space"):
            store.revert("scan")

    np.testing.assert_array_equal(store.load("scan").array, mask(seed=1).array)


def test_others_wait_while_a_mask_is_made_from_the_one_before(open_store):
    store, other = open_store(), open_store()
    store.save("scan", mask(seed=0), MaskRecord({"tumour": 1}, "first"))
    saved = threading.Event()

    def save():
        other.save("scan", mask(seed=1), MaskRecord({"tumour": 1}, "other"))
        saved.set()

    with store.locked():
        thread = threading.Thread(target=save)
        thread.start()
        assert not saved.wait(0.3)
        store.save("scan", mask(seed=2), MaskRecord({"tumour": 1}, "second"))
    thread.join(10)

    assert saved.is_set()
    assert store.record("scan").annotator == "other"
    assert store.revert("scan")
    assert store.record("scan").annotator == "second"


# Whole at every moment


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_failure_in_the_middle_leaves_the_mask_before(store, monkeypatch, function, code):
    path = store.save("scan", mask(seed=1), TUMOUR)
    before = path.read_bytes()

    def fails(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, fails)
    with pytest.raises(OSError, match="."):
        store.save("scan", mask(seed=2), TUMOUR)

    assert path.read_bytes() == before
    assert not list(store.folder.glob(".*.part"))


def test_full_disk_leaves_the_mask_before(open_store, tmp_path):
    disk = tmp_path / "labels"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        store = open_store()
        path = store.save("scan", mask(), TUMOUR)
        before = path.read_bytes()
        large = (100, 100, 100)
        noise = Volume(np.random.default_rng(0).integers(0, 256, large), ImageGeometry(large, AFFINE))
        for image_id in ("scan", "new"):
            with pytest.raises(OSError, match="No space"):
                store.save(image_id, noise, MaskRecord({f"label {value}": value for value in range(1, 256)}))

        assert path.read_bytes() == before
        assert set(store.paths()) == {"scan"}
        store.save("new", mask(), TUMOUR)
        assert set(store.paths()) == {"scan", "new"}
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


WRITER = """
import sys
sys.path[:0] = {paths!r}
from test_mask_store import MaskRecord, MaskStore, mask
from pathlib import Path
store = MaskStore(Path({folder!r}), ("tumour",), Path({folder!r}) / "mapped")
for seed in range({count}):
    store.save("scan", mask(seed=seed), MaskRecord({{"tumour": 1}}, str(seed)))
    print(seed, flush=True)
"""


def writer(store, count):
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
    code = WRITER.format(paths=paths, folder=str(store.folder), count=count)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_writer_leaves_every_acknowledged_mask(store):
    acknowledged = 0
    for delay in np.random.default_rng(0).uniform(0.02, 0.2, 3):
        process = writer(store, 10**6)
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        acknowledged += 1 + len(process.communicate()[0].split())

        stored = [*store.history_folder("scan").iterdir(), store.path("scan")]
        assert len({path.stat().st_ino for path in stored}) >= acknowledged
        assert all(load_volume(path).array.shape == SHAPE for path in stored[-5:])


@pytest.mark.slow
def test_processes_that_save_at_once_lose_no_mask(store):
    writers = [writer(store, 10) for _ in range(3)]
    for process in writers:
        assert len(process.communicate()[0].split()) == 10

    assert 1 + len(list(store.history_folder("scan").iterdir())) == 3 * 10


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


# Damaged files


DAMAGE = {
    "empty": lambda content: b"",
    "no volume": lambda content: b"not a volume",
    "torn": lambda content: content[: len(content) // 2],
    "header only": lambda content: gzip.compress(gzip.decompress(content)[:400]),
    "voxels cut short": lambda content: gzip.compress(gzip.decompress(content)[:-100]),
    "no gzip": gzip.decompress,
    "garbage after a good start": lambda content: content[:60] + bytes(1000),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_file_is_named_and_never_served_and_goes_into_the_history(open_store, damage):
    store = open_store()
    path = store.save("scan", mask(), TUMOUR)
    path.write_bytes(content := damage(path.read_bytes()))

    for read in (store.load, open_store(("cyst", "tumour")).load):
        with pytest.raises(MaskError, match="scan.nii.gz") as error:
            read("scan")
        assert str(path.parent) not in str(error.value)
    for read in (store.app_path, store.checked):
        with pytest.raises(MaskError):
            read("scan")
    store.save("scan", mask(seed=1), TUMOUR)

    np.testing.assert_array_equal(store.load("scan").array, mask(seed=1).array)
    assert [kept.read_bytes() for kept in store.history_folder("scan").iterdir()] == [content]


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
    assert "scan.nii.gz was checked is not kept on disk" in caplog.text


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
