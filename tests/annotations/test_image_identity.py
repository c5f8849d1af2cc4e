"""An image is known by its voxels, whatever its file is called and however it is compressed."""

import os

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.annotations import image_identity
from lib.annotations.image_identity import ImageIdentities, file_stamp, voxel_checksum
from lib.geometry.volume import VolumeError, load_volume

SHAPE = (9, 8, 7)


def write(path, seed=0, dtype=np.int16):
    array = np.random.default_rng(seed).integers(0, 1000, SHAPE).astype(dtype)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.2, 2.5, 1.0])), path)
    return path


@pytest.fixture
def identities(tmp_path):
    return ImageIdentities(tmp_path / "own" / "checksums.json")


@pytest.fixture
def image(tmp_path):
    return write(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("name", ["scan.nii", "scan.nrrd", "other name.nii.gz"])
@pytest.mark.parametrize("compressed", [True, False])
def test_format_and_name_do_not_matter(identities, image, name, compressed):
    other = image.with_name(name)
    sitk.WriteImage(sitk.ReadImage(str(image)), str(other), useCompression=compressed)

    assert identities.checksum(other) == identities.checksum(image)


def test_type_of_the_numbers_does_not_matter(identities, image, tmp_path):
    assert identities.checksum(write(tmp_path / "other.nii.gz", dtype=np.float32)) == identities.checksum(image)


def test_checksum_depends_on_every_voxel_and_the_shape_and_not_on_the_order_in_memory():
    array = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    other = array.copy()
    other[-1, -1, -1] += 1e-6

    assert len({voxel_checksum(one) for one in (array, other, array.reshape(SHAPE[::-1]))}) == 3
    assert voxel_checksum(array) == voxel_checksum(np.asfortranarray(array))


def test_image_with_voxels_that_were_not_measured_is_known_by_the_others(identities, tmp_path):
    """NaN has many bit patterns, and another fill says the same."""
    array = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    checksums = set()
    for n, fill in enumerate([np.nan, -np.nan, np.array(0x7FC12345, np.uint32).view(np.float32), np.inf, -3.4e38]):
        array[:2, 3:] = fill
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{n}.nii.gz")
        checksums |= {identities.checksum(tmp_path / f"{n}.nii.gz") for _ in range(2)}

    assert len(checksums) == 1
    array[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "other.nii.gz")
    assert identities.checksum(tmp_path / "other.nii.gz") not in checksums


def test_voxels_at_hand_are_not_read_again(identities, image):
    stamp, array = file_stamp(image), load_volume(image).array
    image.write_bytes(b"no longer readable")

    assert identities.checksum(image, array, stamp) == voxel_checksum(array)


def test_image_that_is_replaced_after_it_was_read_is_not_taken_for_the_one_before(identities, image):
    stamp, array = file_stamp(image), load_volume(image).array
    write(image, seed=1)

    assert identities.checksum(image, array, stamp) == voxel_checksum(array)
    assert identities.known(image) is None
    assert identities.checksum(image) == voxel_checksum(load_volume(image).array) != voxel_checksum(array)


def test_image_is_read_once(identities, image, monkeypatch):
    read = []
    monkeypatch.setattr(image_identity, "load_volume", lambda path: read.append(path) or load_volume(path))

    found = {identities.checksum(image) for _ in range(3)} | {ImageIdentities(identities.path).checksum(image)}

    assert len(found) == 1
    assert read == [image]
    assert identities.known(image) == found.pop()


def test_image_that_was_never_read_is_not_known(identities, image):
    assert identities.known(image) is None
    assert identities.known(image.with_name("missing.nii.gz")) is None


def in_place(path, content):
    path.write_bytes(content)


def renamed_into_place(path, content):
    other = path.with_name("other")
    other.write_bytes(content)
    os.replace(other, path)


@pytest.mark.parametrize("replace", [in_place, renamed_into_place])
@pytest.mark.parametrize("keeps_time", [False, True], ids=["new time", "time of the copy kept"])
def test_replaced_file_is_noticed_also_of_the_same_size(identities, tmp_path, replace, keeps_time):
    image = write(tmp_path / "scan.nii", seed=0)
    before, checksum = image.stat(), identities.checksum(image)
    content = write(tmp_path / "other.nii", seed=1).read_bytes()
    assert len(content) == before.st_size

    replace(image, content)
    if keeps_time:
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert identities.known(image) is None
    assert identities.checksum(image) != checksum


def test_link_that_leads_elsewhere_is_noticed(identities, tmp_path):
    link = tmp_path / "link.nii.gz"
    link.symlink_to(write(tmp_path / "one.nii.gz", seed=0))
    checksum = identities.checksum(link)
    link.unlink()
    link.symlink_to(write(tmp_path / "two.nii.gz", seed=1))

    assert identities.checksum(link) != checksum


def test_image_that_cannot_be_read_has_no_checksum(identities, image):
    image.write_bytes(b"no image")

    with pytest.raises(VolumeError, match="scan.nii.gz"):
        identities.checksum(image)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"a": 1}', b'{"a": [1, 2]}', b'{"a": ["x", 1, 2, 3]}', b"\xff", b"[" * 5000],
)
def test_damaged_file_of_checksums_is_made_anew(identities, image, content):
    identities.path.parent.mkdir()
    identities.path.write_bytes(content)

    found = ImageIdentities(identities.path)

    assert found.checksum(image) == voxel_checksum(load_volume(image).array)
    assert ImageIdentities(identities.path).known(image) is not None


def test_full_disk_keeps_nobody_from_a_checksum(identities, image, failing, caplog):
    with failing("fsync"):
        assert identities.checksum(image) == voxel_checksum(load_volume(image).array)
    assert "No space left on device" in caplog.text
