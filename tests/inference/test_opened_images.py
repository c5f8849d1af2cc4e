"""Opened images are cached, up to date with their file."""

import threading

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.image_identity import ImageIdentities, voxel_checksum
from lib.data.grid import network_image
from lib.geometry.volume import VolumeError, load_volume
from lib.inference import opened_images
from lib.inference.opened_images import OpenedImages

AFFINE = np.array([[0, -0.8, 0, 3], [0.8, 0, 0, 5], [0, 0, 2.0, -7], [0, 0, 0, 1]])
SHAPE = (12, 10, 8)


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were read."""
    seen = []

    def load(path, **options):
        seen.append(path.name)
        return load_volume(path, **options)

    monkeypatch.setattr(opened_images, "load_volume", load)
    return seen


def write(path, dtype=np.int16, seed=0):
    values = np.random.default_rng(seed).normal(0, 500, SHAPE).astype(dtype)
    nib.save(nib.Nifti1Image(values, AFFINE), path)
    return path


@pytest.mark.parametrize(("dtype", "kept"), [(np.int16, np.int16), (np.float32, np.float32), (np.uint8, np.int16)])
def test_voxels_and_geometry_are_those_of_the_file(images, reads, tmp_path, dtype, kept):
    path = write(tmp_path / "scan.nii.gz", dtype)
    expected = load_volume(path)

    for opened in (images.open(path), images.open(path)):
        np.testing.assert_array_equal(opened.volume.array, expected.array)
        np.testing.assert_array_equal(opened.volume.geometry.affine_ras, expected.geometry.affine_ras)
        assert opened.volume.geometry.shape == SHAPE
        assert opened.volume.array.dtype == kept
        assert opened.checksum == voxel_checksum(expected.array)
    assert reads == ["scan.nii.gz"]


def test_the_next_server_uses_the_cache(images, reads, tmp_path):
    path = write(tmp_path / "scan.nii.gz")
    images.open(path)

    again = OpenedImages(images.prepared, ImageIdentities(tmp_path / "checksums.json"))

    np.testing.assert_array_equal(again.open(path).volume.array, load_volume(path).array)
    assert len(reads) == 1


def test_replaced_file_is_read_again(images, tmp_path):
    path = write(tmp_path / "scan.nii.gz")
    before = images.open(path)

    write(path, seed=1)

    after = images.open(path)
    np.testing.assert_array_equal(after.volume.array, load_volume(path).array)
    assert after.checksum != before.checksum


def test_file_that_is_replaced_during_reading_has_the_checksum_of_the_read_voxels(images, tmp_path, monkeypatch):
    path = write(tmp_path / "scan.nii.gz")
    images.open(path)
    images.prepared.forget(images.identities.known(path))

    def replaced(path):
        write(path, seed=1)
        return load_volume(path)

    monkeypatch.setattr(opened_images, "load_volume", replaced)
    opened = images.open(path)

    assert opened.checksum == voxel_checksum(load_volume(path).array)
    np.testing.assert_array_equal(images.open(path).volume.array, load_volume(path).array)


def test_forgotten_image_is_read_again(images, reads, tmp_path):
    path = write(tmp_path / "scan.nii.gz")
    images.prepared.forget(images.open(path).checksum)

    np.testing.assert_array_equal(images.open(path).volume.array, load_volume(path).array)
    assert len(reads) == 2


def test_image_that_is_not_to_be_kept_is_not_cached(images, tmp_path):
    path = write(tmp_path / "upload.nii.gz")

    opened = images.open(path, keep=False)
    on_grid = images.on_grid(opened, (1.0, 1.0, 1.0))

    expected, affine = network_image(load_volume(path), (1.0, 1.0, 1.0))
    assert opened.checksum is None
    np.testing.assert_array_equal(on_grid.voxels, expected)
    np.testing.assert_array_equal(on_grid.affine, affine)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["upload.nii.gz"]


def test_image_on_the_grid_is_that_of_the_file(images, tmp_path):
    path = write(tmp_path / "scan.nii.gz")
    opened = images.open(path)

    first, second = (images.on_grid(opened, (1.0, 1.0, 1.0)) for _ in range(2))

    expected, affine = network_image(load_volume(path), (1.0, 1.0, 1.0))
    for found in (first, second):
        np.testing.assert_array_equal(found.voxels, expected)
        np.testing.assert_array_equal(found.affine, affine)


def test_large_images_are_not_cached(images, reads, tmp_path, monkeypatch):
    monkeypatch.setattr(opened_images, "_MAX_BYTES", 100)
    path = write(tmp_path / "scan.nii.gz")

    for _ in range(2):
        np.testing.assert_array_equal(images.open(path).volume.array, load_volume(path).array)

    assert len(reads) == 2
    assert not list((tmp_path / "prepared").glob("*"))


def test_threads_that_open_an_image_wait_for_the_first(images, reads, tmp_path):
    path = write(tmp_path / "scan.nii.gz")
    threads = [threading.Thread(target=images.open, args=(path,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(reads) == 1


@pytest.mark.parametrize("known", [False, True])
def test_unreadable_image_is_refused(images, tmp_path, known):
    path = write(tmp_path / "scan.nii.gz")
    if known:
        images.open(path)
    path.write_bytes(b"no image")

    with pytest.raises(VolumeError, match="scan.nii.gz cannot be read"):
        images.open(path)
