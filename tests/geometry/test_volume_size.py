"""Sizes are checked against the file, the limit and the memory before memory is taken."""

import gzip
import tracemalloc

import nibabel as nib
import numpy as np
import psutil
import pytest

from lib.geometry.volume import VolumeError, check_size, load_volume, read_geometry
from lib.geometry.volume_size import MAX_VOLUME_VARIABLE, cgroup_free_bytes, max_volume_gb

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def nifti(shape, kind=np.uint8, version=1, offset=None):
    header = (nib.Nifti1Header if version == 1 else nib.Nifti2Header)()
    header.set_data_dtype(kind)
    header["dim"][: 1 + len(shape)] = [len(shape), *shape]
    header["vox_offset"] = (352 if version == 1 else 544) if offset is None else offset
    header.set_sform(AFFINE, 1)
    return header.binaryblock + bytes(4)


def nrrd(sizes, encoding="raw"):
    dimension = len(sizes.split())
    lines = ("NRRD0001", "type: float", f"dimension: {dimension}", f"sizes: {sizes}", f"encoding: {encoding}")
    return "\n".join([*lines, "endian: little", "", ""]).encode()


HOSTILE = {
    "nrrd.nrrd": nrrd("100000 100000 100000"),
    "nrrd of a gzip bomb.nrrd": nrrd("1000 1000 1000", "gzip") + gzip.compress(bytes(10**7)),
    "nrrd of more voxels than numbers.nrrd": nrrd("99999999999 99999999999 99999999999"),
    "nrrd of numbers that overflow.nrrd": nrrd("4294967296 4294967296 4294967296"),
    "nrrd without voxels.nrrd": nrrd("0 10 10"),
    "nrrd of negative sizes.nrrd": nrrd("-10 -10 10"),
    "nrrd of many axes.nrrd": nrrd(" ".join(["100"] * 1000)),
    "nrrd of one long line.nrrd": b"NRRD0001\ntype: float\nsizes: " + b"1 " * 10**6,
    "nifti.nii": nifti((32767, 32767, 32767)),
    "nifti of one voxel too many.nii": nifti((10, 10, 10)) + bytes(999),
    "nifti of doubles.nii": nifti((100, 100, 100), np.float64) + bytes(7 * 10**6),
    "nifti of negative sizes.nii": nifti((-10, -10, 10)),
    "nifti without voxels.nii": nifti((0, 10, 10)),
    "nifti of seven axes.nii": nifti([32767] * 7),
    "nifti of numbers that overflow.nii": nifti((2**62, 2**62, 2**62), version=2),
    "nifti that begins far away.nii": nifti((10, 10, 10), version=2, offset=2**62) + bytes(1000),
    "nifti that begins before itself.nii": nifti((10, 10, 10), offset=-1000) + bytes(1000),
    "compressed nifti.nii.gz": gzip.compress(nifti((32767, 32767, 32767))),
    "gzip bomb.nii.gz": gzip.compress(nifti((1000, 1000, 1000)) + bytes(10**7)),
    "gzip bomb before the voxels.nii.gz": gzip.compress(nifti((10, 10, 10), version=2, offset=10**9) + bytes(10**7)),
    "gzip bomb that is no nifti.nii.gz": gzip.compress(bytes(10**8)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("read", [load_volume, read_geometry])
def test_header_of_more_than_the_file_holds_is_refused_before_memory_is_taken(tmp_path, name, read):
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])

    tracemalloc.start()
    try:
        with pytest.raises(VolumeError, match=name):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_volume_beyond_the_limit_is_refused_by_its_header(tmp_path, monkeypatch):
    nib.save(nib.Nifti1Image(np.zeros((100, 100, 50), np.uint8), AFFINE), tmp_path / "a.nii.gz")

    monkeypatch.setenv(MAX_VOLUME_VARIABLE, "0.001")
    with pytest.raises(VolumeError, match="100 x 100 x 50, 0.002 GB as 32-bit numbers; expected at most 0.001 GB"):
        read_geometry(tmp_path / "a.nii.gz")
    monkeypatch.setenv(MAX_VOLUME_VARIABLE, "0.002")
    assert load_volume(tmp_path / "a.nii.gz").array.shape == (100, 100, 50)


@pytest.mark.parametrize("value", ["abc", "0", "-1", "nan"])
def test_limit_that_is_no_number_is_named(monkeypatch, value):
    monkeypatch.setenv(MAX_VOLUME_VARIABLE, value)

    with pytest.raises(ValueError, match=f"max_volume_gb is '{value}'; expected a number of GB above 0"):
        max_volume_gb()
    with pytest.raises(VolumeError, match="The image a"):
        check_size((2, 2, 2), "The image a")


def test_volume_that_does_not_fit_into_the_free_memory_is_refused(monkeypatch):
    monkeypatch.setenv(MAX_VOLUME_VARIABLE, "1e9")
    free = psutil.virtual_memory().available
    shape = (1000, 1000, 2 * free // 10**6 // 5)

    check_size(shape, "The image a")
    with pytest.raises(VolumeError, match="takes about .* GB of memory, of which .* GB are free"):
        check_size(shape, "The image a", 5)


def write_group(folder, names, limit, used, reclaimable):
    folder.mkdir(parents=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"cache 7\n{names[2]} {reclaimable}\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize(
    ("line", "folder", "names"), [("0::/a/b", "a", V2), ("0::/a/b", "", V2), ("4:cpu,memory:/a/b", "memory/a", V1)]
)
def test_limit_of_a_container_counts_without_what_the_kernel_gives_back(tmp_path, line, folder, names):
    (tmp_path / "membership").write_text(f"1:name=systemd:/\n{line}\n")
    write_group(tmp_path / "root" / folder, names, 1000, 700, 200)

    assert list(cgroup_free_bytes(tmp_path / "root", tmp_path / "membership")) == [500]


@pytest.mark.parametrize(("line", "limit"), [("0::/", "max"), ("0::/", None), ("3:cpu:/", 1000)])
def test_group_without_a_limit_does_not_count(tmp_path, line, limit):
    (tmp_path / "membership").write_text(line)
    if limit:
        write_group(tmp_path / "root", V2, limit, 700, 200)

    assert list(cgroup_free_bytes(tmp_path / "root", tmp_path / "membership")) == []
    assert list(cgroup_free_bytes(tmp_path / "root", tmp_path / "nowhere")) == []
