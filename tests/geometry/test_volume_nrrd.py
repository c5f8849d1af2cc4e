"""NRRD is read where ITK, and so 3D Slicer, has it; and only what is in the file itself."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from lib.geometry.volume import VolumeError, load_volume, read_geometry

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype("<i2")
GRID = {
    "space dimension": None,
    "space": "left-posterior-superior",
    "space directions": "(0,-0.6,0) (0.5,0,0) (0,0,6.5)",
    "space origin": "(-40,20,7)",
}


def nrrd(path, array=ARRAY, *, gzipped=False, **fields):
    """Writes a file line by line, so that every header can be made; None leaves a field out."""
    header = {
        "type": "short",
        "dimension": array.ndim,
        "sizes": " ".join(map(str, array.shape)),
        "encoding": "gzip" if gzipped else "raw",
        "endian": "little",
        **GRID,
        **{name.replace("_", " "): value for name, value in fields.items()},
    }
    lines = ["NRRD0005", *[f"{name}: {value}" for name, value in header.items() if value is not None]]
    voxels = array.tobytes(order="F")
    path.write_bytes("\n".join([*lines, "", ""]).encode() + (gzip.compress(voxels) if gzipped else voxels))
    return path


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"space": "LPS"},
        {"space": "right-anterior-superior"},
        {"space": "RAS"},
        {"space": "left-anterior-superior"},
        {"space": "LAS"},
        {"space": "scanner-xyz"},
        {"space_origin": None},
        {"kinds": "domain domain domain"},
        {"space": None, "space_directions": None, "space_origin": None, "spacings": "0.5 0.6 6.5"},
        {"space": None, "space_directions": None, "space_origin": None},
        {"space": None, "space_dimension": 3},
    ],
    ids=str,
)
def test_voxels_lie_where_itk_says(tmp_path, fields, gzipped):
    path = nrrd(tmp_path / "a.nrrd", gzipped=gzipped, **fields)
    image = sitk.ReadImage(str(path))

    volume = load_volume(path)

    np.testing.assert_array_equal(volume.array, ARRAY)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(), ARRAY)
    for voxel in ((0, 0, 0), (1, 2, 3)):
        lps_mm = image.TransformIndexToPhysicalPoint(voxel)
        np.testing.assert_allclose(volume.geometry.voxel_to_lps(np.array(voxel)), lps_mm, atol=1e-6)
    assert read_geometry(path).is_close(volume.geometry)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_numbers_of_every_kind_that_itk_writes_are_read(tmp_path, kind):
    array = np.arange(120).reshape(6, 5, 4).astype(kind)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.nrrd"), True)

    np.testing.assert_array_equal(load_volume(tmp_path / "a.nrrd").array, array.transpose())


def test_big_endian_numbers_are_read(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", ARRAY.astype(">i2"), endian="big")

    np.testing.assert_array_equal(load_volume(path).array, ARRAY)


@pytest.mark.parametrize(
    ("shape", "kinds", "directions"),
    [
        ((1, 4, 5, 6), "vector domain domain domain", "none (1,0,0) (0,1,0) (0,0,2)"),
        ((1, 1, 4, 5, 6), "list vector domain domain domain", "none none (1,0,0) (0,1,0) (0,0,2)"),
        ((4, 5, 6, 1), "domain domain domain list", "(1,0,0) (0,1,0) (0,0,2) none"),
        ((1, 4, 5, 6, 1), "list domain domain domain time", "none (1,0,0) (0,1,0) (0,0,2) none"),
    ],
)
def test_axes_of_length_1_around_the_volume_are_dropped(tmp_path, shape, kinds, directions):
    path = nrrd(tmp_path / "a.nrrd", ARRAY.reshape(shape), kinds=kinds, space_directions=directions)

    volume = load_volume(path)

    np.testing.assert_array_equal(volume.array, ARRAY)
    assert volume.geometry.spacing_mm == (1, 1, 2)


@pytest.mark.parametrize(
    ("shape", "kinds", "directions"),
    [
        ((3, 4, 5, 6), "RGB-color domain domain domain", "none (1,0,0) (0,1,0) (0,0,2)"),
        ((4, 5, 6, 2), "domain domain domain list", "(1,0,0) (0,1,0) (0,0,2) none"),
        ((3, 4, 5), "vector domain domain", "none (1,0,0) (0,1,0)"),
        ((3, 4, 5), "RGB-color domain domain", "(1,0,0) (0,1,0) (0,0,2)"),
        ((4, 5, 6), "domain domain time", "(1,0,0) (0,1,0) none"),
        ((4, 5), "domain domain", "(1,0,0) (0,1,0)"),
        ((4, 5, 1), "domain domain domain", "(1,0,0) (0,1,0) (0,0,2)"),
    ],
)
def test_colours_vectors_times_and_planes_are_refused(tmp_path, shape, kinds, directions):
    array = np.zeros(shape, "<i2")

    with pytest.raises(VolumeError, match="The image a.nrrd (has the size|cannot be read .one of its axes counts)"):
        load_volume(nrrd(tmp_path / "a.nrrd", array, kinds=kinds, space_directions=directions))


@pytest.mark.parametrize("field", ["data file", "datafile", "Data File", "DATAFILE", "data  file", "DataFile"])
@pytest.mark.parametrize("value", ["secret.raw", "/etc/passwd", "../secret.raw", "LIST", "slice%03d.raw 1 12 1"])
@pytest.mark.parametrize("separator", [": ", ":", ":="])
def test_voxels_in_another_file_are_refused(tmp_path, field, value, separator):
    (tmp_path / "secret.raw").write_bytes(ARRAY.tobytes(order="F"))
    path = nrrd(tmp_path / "a.nrrd")
    path.write_bytes(path.read_bytes().replace(b"endian: ", f"{field}{separator}{value}\nendian: ".encode(), 1))

    with pytest.raises(VolumeError, match="a.nrrd cannot be read .its voxels are in another file"):
        load_volume(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"encoding": "bzip2"},
        {"encoding": "hex"},
        {"encoding": None},
        {"type": "block"},
        {"type": "quaternion"},
        {"endian": None},
        {"sizes": "4 5"},
        {"sizes": "4 5 six"},
        {"sizes": None},
        {"byte_skip": 10},
        {"line_skip": 1},
        {"space_directions": "(0,0,0) (0,0,0) (0,0,0)"},
        {"space_directions": "(1,0,0) (1,0,0) (0,0,1)"},
        {"space_directions": "(nan,0,0) (0,1,0) (0,0,1)"},
        {"space_directions": "none none none"},
        {"space_origin": "(nan,nan,nan)"},
        {"space_origin": "(1,2)"},
        {"space_directions": "(1,0) (0,1) (1,1)"},
    ],
    ids=str,
)
def test_header_that_is_of_no_volume_is_refused(tmp_path, fields):
    with pytest.raises(VolumeError, match="The (image|header of the image|axes of the image).* a.nrrd"):
        load_volume(nrrd(tmp_path / "a.nrrd", **fields))
