"""The cache of scans on the network's grid."""

import errno
import multiprocessing
import os
import stat

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch

from lib.annotations import atomic_write
from lib.data import prepared_scans
from lib.data.grid import network_image, network_label_map
from lib.data.prepared_scans import LABEL_VOXELS, PreparedScans
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, VolumeError, load_volume
from tests.full_disk import no_space

SPACING_MM = (1.0, 1.0, 1.0)
SHAPE = (20, 16, 12)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


class Maker:
    """Makes voxels of one value, and counts its calls."""

    def __init__(self, value=1.0, shape=SHAPE):
        self.voxels = torch.full(shape, value, dtype=torch.float16)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.voxels, AFFINE


def files(cache):
    return sorted(path for path in cache.folder.iterdir() if path.is_file())


def file_of(cache, checksum, name="image"):
    """Add a volume, and return its file, which must be the only new one."""
    before = set(files(cache)) if cache.folder.exists() else set()
    cache.volume(checksum, name, SPACING_MM, Maker())
    (new,) = set(files(cache)) - before
    return new


@pytest.fixture
def cache(tmp_path):
    return PreparedScans(tmp_path / "prepared")


# Content


def test_volume_is_made_once(cache):
    make = Maker()

    first, second = (cache.volume("sum", "image", SPACING_MM, make) for _ in range(2))

    assert make.calls == 1
    for prepared in (first, second):
        assert torch.equal(prepared.voxels, make.voxels) and prepared.voxels.dtype == torch.float16
        np.testing.assert_array_equal(prepared.affine, AFFINE)
        assert prepared.label_voxels == {}


@pytest.mark.parametrize(
    "other", [("other", "image", SPACING_MM), ("sum", "mask", SPACING_MM), ("sum", "image", (1, 1, 2))]
)
def test_image_name_and_grid_identify_a_volume(cache, other):
    cache.volume("sum", "image", SPACING_MM, Maker(1))

    assert cache.volume(*other, Maker(2)).voxels.unique().tolist() == [2]
    assert cache.volume("sum", "image", SPACING_MM, Maker(3)).voxels.unique().tolist() == [1]


def test_files_of_other_versions_are_not_read(cache, monkeypatch):
    cache.volume("sum", "image", SPACING_MM, Maker(1))
    monkeypatch.setattr(prepared_scans, "VERSION", prepared_scans.VERSION + 1)

    assert cache.volume("sum", "image", SPACING_MM, Maker(2)).voxels.unique().tolist() == [2]


@pytest.fixture
def scan_path(tmp_path):
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), AFFINE), path)
    return path


def test_image_is_that_of_the_file_on_the_grid_and_is_prepared_once(cache, scan_path, monkeypatch):
    voxels, affine = network_image(load_volume(scan_path), (1.5, 1.5, 1.5))

    first = cache.image(scan_path, "sum", (1.5, 1.5, 1.5))
    monkeypatch.setattr(prepared_scans, "network_image", lambda *_: pytest.fail("it was prepared again"))
    second = cache.image(scan_path, "sum", (1.5, 1.5, 1.5))

    for prepared in (first, second):
        assert torch.equal(prepared.voxels, voxels)
        np.testing.assert_array_equal(prepared.affine, affine)


def test_image_with_the_same_voxels_and_another_affine_is_another_volume(cache, scan_path):
    cache.image(scan_path, "sum", SPACING_MM)
    voxels = np.asanyarray(nib.load(scan_path).dataobj)
    mirrored = np.diag([-1.0, 2.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(voxels, mirrored), scan_path)

    prepared = cache.image(scan_path, "sum", SPACING_MM)

    assert torch.equal(prepared.voxels, network_image(load_volume(scan_path), SPACING_MM)[0])
    assert torch.equal(
        prepared.voxels.flip(0), network_image(Volume(voxels, ImageGeometry(SHAPE, AFFINE)), SPACING_MM)[0]
    )


def test_label_map_lists_voxels_of_each_label(cache):
    array = np.zeros(SHAPE, np.float32)
    array[2:6, 3:9, 1:5] = 1  # 96 voxels
    array[8:20, :, 5:] = 3  # 1344
    array[10, 10, 10] = 7
    stored = Volume(array, ImageGeometry(SHAPE, np.eye(4)))

    for _ in range(2):
        prepared = cache.label_map("sum", "mask", SPACING_MM, lambda: stored)

        assert torch.equal(prepared.voxels, network_label_map(stored, SPACING_MM)[0])
        assert {label: len(voxels) for label, voxels in prepared.label_voxels.items()} == {1: 96, 3: LABEL_VOXELS, 7: 1}
        for label, voxels in prepared.label_voxels.items():
            assert (prepared.voxels[tuple(voxels.long().T)] == label).all()
            assert len(voxels.unique(dim=0)) == len(voxels)


def test_listed_voxels_are_spread_over_the_label(cache):
    label_map = Volume(np.ones((40, 40, 40), np.float32), ImageGeometry((40, 40, 40), np.eye(4)))

    voxels = cache.label_map("sum", "mask", SPACING_MM, lambda: label_map).label_voxels[1].double()

    assert voxels.mean(dim=0).tolist() == pytest.approx([19.5] * 3, abs=1)
    assert (voxels.amin(dim=0) < 2).all() and (voxels.amax(dim=0) > 37).all()


@pytest.mark.parametrize("error", [VolumeError("no image"), ValueError("a bug")])
def test_volume_that_cannot_be_made_leaves_no_file(cache, error):
    def fail():
        raise error

    with pytest.raises(type(error), match=str(error)):
        cache.volume("sum", "image", SPACING_MM, fail)
    assert not cache.folder.exists()


# Damaged files

DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "overwritten": lambda path: path.write_bytes(b"no torch file"),
    "other content": lambda path: torch.save({"weights": torch.ones(3)}, path),
    # A pickle that would run a command if it were trusted.
    "code": lambda path: torch.save({"voxels": pytest.raises, "affine": torch.eye(4), "label_voxels": {}}, path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_file_is_made_again(cache, caplog, damage):
    damage(file_of(cache, "sum"))
    make = Maker(5)

    assert [cache.volume("sum", "image", SPACING_MM, make).voxels[0, 0, 0].item() for _ in range(2)] == [5, 5]
    assert make.calls == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_file_of_another_user_is_read(cache, monkeypatch):
    cache.volume("sum", "image", SPACING_MM, Maker(1))

    def refused(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(prepared_scans.os, "utime", refused)
    assert cache.volume("sum", "image", SPACING_MM, Maker(2)).voxels.unique().tolist() == [1]


# Size


def test_cache_is_bounded_and_the_least_recently_used_volume_is_deleted_first(cache):
    paths = {name: file_of(cache, name) for name in "abc"}
    size = paths["a"].stat().st_size
    for age_s, name in enumerate("cba"):
        os.utime(paths[name], (1e9 - age_s, 1e9 - age_s))
    cache.volume("a", "image", SPACING_MM, Maker())

    small = PreparedScans(cache.folder, limit_bytes=3 * size)
    paths["d"] = file_of(small, "d")
    assert set(files(cache)) == {paths[name] for name in "acd"}

    paths["e"] = file_of(small, "e")
    assert set(files(cache)) == {paths[name] for name in "ade"}


def test_nothing_is_deleted_below_the_limit(cache):
    size = file_of(cache, "0").stat().st_size

    for name in "1234":
        PreparedScans(cache.folder, limit_bytes=5 * size).volume(name, "image", SPACING_MM, Maker())

    assert len(files(cache)) == 5


def test_limit_holds_for_any_sequence_of_volumes(tmp_path):
    sizes = np.random.default_rng(0).integers(1, 60, 40)
    cache = PreparedScans(tmp_path, limit_bytes=300_000)

    for number, length in enumerate(sizes):
        cache.volume(str(number), "image", SPACING_MM, Maker(shape=(int(length), 40, 40)))
        assert sum(path.stat().st_size for path in files(cache)) <= 300_000


def test_partial_file_of_a_killed_process_is_counted_and_deleted(cache, monkeypatch):
    size = file_of(cache, "a").stat().st_size
    monkeypatch.setattr(atomic_write.os, "replace", lambda *_: os._exit(9))
    killed = multiprocessing.get_context("fork").Process(target=file_of, args=(cache, "b"))
    killed.start()
    killed.join(60)
    monkeypatch.undo()
    (left,) = set(files(cache)) - set(cache.folder.glob("*.pt"))
    os.utime(left, (1e9, 1e9))

    file_of(PreparedScans(cache.folder, limit_bytes=2 * size), "c")

    assert not left.exists() and len(files(cache)) == 2


def test_volume_in_use_stays_readable_without_its_file(cache):
    kept = cache.volume("sum", "image", SPACING_MM, Maker(3, (64, 64, 64)))
    for path in files(cache):
        path.unlink()

    assert (kept.voxels == 3).all()


def test_forget_removes_all_volumes_of_one_image_only(cache):
    cache.forget("sum")  # before the folder exists
    kept = {file_of(cache, "other"), file_of(cache, "other", "mask"), file_of(cache, "su")}
    for name in ("image", "mask", "click mask"):
        file_of(cache, "sum", name)

    cache.forget("sum")
    cache.forget("never seen")

    assert set(files(cache)) == kept


# Write errors


def test_full_disk_still_returns_the_volume(cache, monkeypatch, caplog):
    monkeypatch.setattr(atomic_write.os, "fsync", no_space)
    label_map = Volume(np.ones(SHAPE, np.float32), ImageGeometry(SHAPE, AFFINE))

    prepared = cache.label_map("sum", "mask", (1.0, 2.0, 3.0), lambda: label_map)

    assert prepared.voxels.shape == SHAPE and (prepared.voxels == 1).all()
    assert len(prepared.label_voxels[1]) == LABEL_VOXELS
    np.testing.assert_array_equal(prepared.affine, AFFINE)
    assert files(cache) == []
    assert "No space left on device" in caplog.text


def test_folder_that_cannot_be_created_still_returns_the_volume(tmp_path):
    (tmp_path / "prepared").write_text("a file")

    prepared = PreparedScans(tmp_path / "prepared").volume("sum", "image", SPACING_MM, Maker(2))

    assert (prepared.voxels == 2).all()


def test_file_that_another_process_deletes_at_once_still_returns_the_volume(cache, monkeypatch):
    def write_and_lose(path, content):
        atomic_write.write_atomically(path, content)
        path.unlink()

    monkeypatch.setattr(prepared_scans, "write_atomically", write_and_lose)

    assert (cache.volume("sum", "image", SPACING_MM, Maker(2)).voxels == 2).all()


def test_file_that_another_process_deletes_while_it_is_opened_still_returns_the_volume(cache, monkeypatch):
    load, errors = torch.load, [FileNotFoundError(), RuntimeError("unable to open file")]

    def fail_twice(*arguments, **options):
        if errors:
            raise errors.pop(0)
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", fail_twice)

    assert (cache.volume("sum", "image", SPACING_MM, Maker(2)).voxels == 2).all()
    assert not errors


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_the_mode_of_the_umask(cache, umask):
    before = os.umask(umask)
    try:
        path = file_of(cache, "sum")
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


# Several processes


def read_much(folder, limit_bytes, seed):
    torch.set_num_threads(1)
    cache, generator = PreparedScans(folder, limit_bytes), np.random.default_rng(seed)
    for number in generator.integers(0, 6, 60):
        prepared = cache.volume(str(number), "image", SPACING_MM, Maker(float(number)))
        if prepared.voxels.shape != SHAPE or not (prepared.voxels == number).all():
            os._exit(1)
    os._exit(0)


@pytest.mark.parametrize("room", [2, 100])
def test_processes_can_share_the_cache(tmp_path, room):
    # With room for two of six volumes, the processes delete each other's files all the time.
    size = file_of(PreparedScans(tmp_path / "one"), "0").stat().st_size
    processes = [
        multiprocessing.get_context("fork").Process(target=read_much, args=(tmp_path / "all", room * size, seed))
        for seed in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)

    assert [process.exitcode for process in processes] == [0] * 4
    assert all(path.suffix == ".pt" for path in (tmp_path / "all").iterdir())


# Memory


def test_reading_many_scans_takes_the_memory_of_one(cache):
    scan_bytes = 2 * 160**3
    for number in range(10):
        cache.volume(str(number), "image", SPACING_MM, Maker(number, (160, 160, 160)))
    used = []
    for number in [0, 1, *range(10)]:
        assert (cache.volume(str(number), "image", SPACING_MM, Maker(-1)).voxels == number).all()
        used.append(psutil.Process().memory_info().rss)

    assert max(used[2:]) - used[1] < 1.5 * scan_bytes


def test_volume_takes_memory_only_for_voxels_that_are_read(cache):
    # A part of each of eight volumes is read; the system maps whole pages.
    scan_bytes = 2 * 256**3
    cache.volume("sum", "image", SPACING_MM, Maker(1, (256, 256, 256)))
    before = psutil.Process().memory_info().rss

    prepared = [cache.volume("sum", "image", SPACING_MM, Maker(1)) for _ in range(8)]
    parts = [volume.voxels[100:148, 100:148, 100:148].float() for volume in prepared]

    assert all((part == 1).all() for part in parts)
    assert psutil.Process().memory_info().rss - before < 4 * scan_bytes
