"""Masks on disk: whole at every moment, with the names of their labels in them, and with what was there before."""

import errno
import gzip
import shutil
import threading
import time

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.annotations.mask_file import MaskError, MaskRecord, encoded_mask
from lib.annotations.mask_store import MaskStore
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, load_volume
from tests.annotations.writing import start_writer
from tests.full_disk import small_disk

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


@pytest.fixture
def open_store(tmp_path):
    """Return a function that opens a store of masks for an app with some labels."""

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


def test_mask_lies_where_it_was_drawn_and_is_read_alike_by_others(store):
    saved = mask()
    path = store.save("scan", saved, TUMOUR)

    loaded = store.load("scan")

    np.testing.assert_array_equal(loaded.array, saved.array)
    assert loaded.geometry.is_close(GEOMETRY)
    assert store.record("scan").created.startswith("20")
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, saved.array)
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
    for ask in (store.load, store.record, store.checked):
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
    assert not store.revert("scan"), "a mask without a record replaced none"


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


@pytest.mark.parametrize("replaced", ["../../secret", "*", "", 7, None])
def test_name_in_the_history_leads_nowhere_else(store, tmp_path, replaced):
    secret = tmp_path / "secret.nii.gz"
    secret.write_bytes(b"secret")
    store.save("scan", mask(), TUMOUR)
    store.path("scan").write_bytes(encoded_mask(mask(), MaskRecord({"tumour": 1}, replaced=replaced)))

    assert not store.revert("scan")
    assert secret.read_bytes() == b"secret"


def test_failure_while_a_mask_is_taken_back_leaves_it(store, failing):
    for seed in range(2):
        store.save("scan", mask(seed=seed), TUMOUR)

    with failing("link"), failing("copyfile", module=shutil), pytest.raises(OSError, match="No space"):
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
def test_failure_in_the_middle_leaves_the_mask_before(store, failing, function, code):
    path = store.save("scan", mask(seed=1), TUMOUR)
    before = path.read_bytes()

    with failing(function, code=code), pytest.raises(OSError, match="."):
        store.save("scan", mask(seed=2), TUMOUR)

    assert path.read_bytes() == before
    assert not list(store.folder.glob(".*.part"))


def test_full_disk_leaves_the_mask_before(open_store, tmp_path):
    with small_disk(tmp_path / "labels", "256k"):
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


WRITER = """
from test_mask_store import MaskRecord, MaskStore, mask
from pathlib import Path
store = MaskStore(Path({folder!r}), ("tumour",), Path({folder!r}) / "mapped")
for seed in range({count}):
    store.save("scan", mask(seed=seed), MaskRecord({{"tumour": 1}}, str(seed)))
    print(seed, flush=True)
"""


def writer(store, count):
    return start_writer(WRITER.format(folder=str(store.folder), count=count))


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
    with pytest.raises(MaskError):
        store.checked("scan")
    store.save("scan", mask(seed=1), TUMOUR)

    np.testing.assert_array_equal(store.load("scan").array, mask(seed=1).array)
    assert [kept.read_bytes() for kept in store.history_folder("scan").iterdir()] == [content]
