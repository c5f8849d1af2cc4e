"""What a browser is sent of a scan: the same voxels in the same places, in small numbers."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.geometry.volume import VolumeError, load_volume
from lib.geometry.volume_view import can_be_served_as_is, middle_axial_slice, write_view
from tests.physical import PLANES, SHAPE, l_shape

LEFT_HANDED = "axial, slices downwards"


def write(path, array, affine=PLANES["axial"], slope=None, inter=None, **header):
    """A NIfTI file that is placed by its sform alone."""
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(None, code=0)
    image.header.set_xyzt_units("mm")
    for name, value in header.items():
        image.header[name] = value
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    nib.save(image, path)
    return path


def viewed(source, tmp_path):
    """The view as another reader has it: numbers as stored, and the affine by which NiiVue goes."""
    target = tmp_path / "view.nii.gz"
    write_view(source, target)
    image = nib.load(target)
    header = image.header
    assert header["sform_code"] >= max(1, header["qform_code"]) and header["xyzt_units"] & 7 == 2
    assert header.get_slope_inter() in ((None, None), (1.0, 0.0)) and header.endianness == "<"
    return np.asanyarray(image.dataobj), header.get_sform()


@pytest.mark.parametrize("plane", PLANES)
def test_voxels_keep_their_order_and_their_places(tmp_path, plane):
    source = write(tmp_path / "a.nii", l_shape(), PLANES[plane])

    array, affine = viewed(source, tmp_path)

    assert np.array_equal(array, l_shape())
    assert np.allclose(affine, PLANES[plane], atol=1e-5)
    assert len(gzip.decompress((tmp_path / "view.nii.gz").read_bytes())) == 352 + l_shape().nbytes


@pytest.mark.parametrize("plane", ["oblique", LEFT_HANDED, "sagittal"])
def test_nrrd_lies_where_itk_says(tmp_path, plane):
    image = sitk.ReadImage(str(write(tmp_path / "a.nii", l_shape(), PLANES[plane])))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))

    array, affine = viewed(tmp_path / "a.nrrd", tmp_path)

    assert np.array_equal(array, sitk.GetArrayFromImage(image).T)
    voxel = [3, 5, 7]
    lps_mm = image.TransformIndexToPhysicalPoint(voxel)
    assert np.allclose(nib.affines.apply_affine(affine, voxel), np.multiply(lps_mm, [-1, -1, 1]), atol=1e-3)


@pytest.mark.parametrize(
    ("stored", "lowest", "highest", "sent"),
    [
        ("uint8", 0, 255, "uint8"),
        ("int8", -128, 127, "int16"),
        ("int16", -32768, 32767, "int16"),
        ("uint16", 0, 65535, "uint16"),
        (">i2", -5, 500, "int16"),
        ("int32", -1024, 3071, "int16"),
        ("int32", 0, 40000, "uint16"),
        ("int32", -1, 40000, "float32"),
        ("float32", -1024, 3071, "int16"),
        ("float32", 0, 0.5, "float32"),
        ("float64", 0, 65535, "uint16"),
        ("int64", -1000, 1000, "int16"),
    ],
)
def test_numbers_are_as_small_as_they_can_be_and_exact(tmp_path, stored, lowest, highest, sent):
    array = np.linspace(lowest, highest, 4 * 5 * 6).reshape(4, 5, 6)
    array = array.astype(stored) if np.dtype(stored).kind != "f" or highest < 1 else np.rint(array).astype(stored)
    source = tmp_path / "a.nii"
    nib.Nifti1Image(array, PLANES["axial"], dtype=array.dtype).to_filename(source)

    view, _ = viewed(source, tmp_path)

    assert view.dtype == sent
    assert np.array_equal(view, array.astype(np.float32))


def test_slope_and_intercept_are_applied(tmp_path):
    source = write(tmp_path / "a.nii", np.arange(120, dtype=np.float32).reshape(4, 5, 6) * 2 - 1000)
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), PLANES["axial"])
    image.header.set_slope_inter(2, -1000)
    image.header["magic"] = b"n+1"
    content = image.header.binaryblock + bytes(4) + image.get_fdata().astype("<i2").tobytes(order="F")
    source.write_bytes(content[:108] + np.float32(352).tobytes() + content[112:])
    assert load_volume(source).array.max() == 2 * 119 - 1000

    view, _ = viewed(source, tmp_path)

    assert view.dtype == "int16"
    assert np.array_equal(view, load_volume(source).array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e20, -3.4e38])
def test_what_was_not_measured_is_the_lowest_of_the_others_as_in_requests_for_masks(tmp_path, bad):
    array = np.arange(120, dtype=np.float32).reshape(4, 5, 6) + 7
    array[1, 2, 3] = bad
    source = write(tmp_path / "a.nii", array)

    view, _ = viewed(source, tmp_path)

    assert np.array_equal(view, load_volume(source).array)
    assert view[1, 2, 3] == 7 and view.dtype == "int16"


def test_large_image_is_written_in_pieces(tmp_path):
    array = np.random.default_rng(0).integers(0, 4000, (128, 128, 150)).astype(np.uint16)  # more than 2**20 voxels

    view, _ = viewed(write(tmp_path / "a.nii.gz", array), tmp_path)

    assert np.array_equal(view, array)


def damaged(path, kind):
    if kind == "4D":
        return write(path, np.zeros((4, 5, 6, 2), np.int16))
    if kind == "colours":
        rgb = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.Nifti1Image(rgb, PLANES["axial"]).to_filename(path)
        return path
    if kind == "nothing measured":
        return write(path, np.full((4, 5, 6), np.nan, np.float32))
    content = write(path, np.random.default_rng(0).integers(0, 999, (40, 40, 40)).astype(np.int16)).read_bytes()
    changed = content[: len(content) // 2] if kind == "cut short" else content[:-8] + bytes(4) + content[-4:]
    path.write_bytes(changed)
    return path


@pytest.mark.parametrize("kind", ["4D", "colours", "nothing measured", "cut short"])
def test_what_is_no_volume_is_refused_as_elsewhere(tmp_path, kind):
    source = damaged(tmp_path / "a.nii.gz", kind)
    with pytest.raises(VolumeError) as elsewhere:
        load_volume(source)

    with pytest.raises(VolumeError) as error:
        write_view(source, tmp_path / "view.nii.gz")

    assert str(error.value) == str(elsewhere.value)


AS_IS = {
    "int16": {},
    "uint8": {"array": l_shape().astype(np.uint8)},
    "no unit": {"xyzt_units": 0},
    "left-handed": {"affine": PLANES[LEFT_HANDED]},
    "oblique": {"affine": PLANES["oblique"]},
}
NOT_AS_IS = {
    "float32": {"array": l_shape().astype(np.float32)},
    "int32": {"array": l_shape().astype(np.int32)},
    "big endian": {"array": l_shape().astype(">i2")},
    "placed by a qform of higher rank": {"qform_code": 2},
    "metres": {"xyzt_units": 1},
    "a label map": {"intent_code": 1002},
    "four axes": {"array": l_shape()[..., None]},
}


@pytest.mark.parametrize("changed", AS_IS.values(), ids=AS_IS)
def test_plain_file_is_sent_as_it_is(tmp_path, changed):
    assert can_be_served_as_is(write(tmp_path / "a.nii.gz", **{"array": l_shape(), **changed}))


@pytest.mark.parametrize("changed", NOT_AS_IS.values(), ids=NOT_AS_IS)
def test_file_that_readers_may_take_otherwise_is_not(tmp_path, changed):
    array = changed.get("array", l_shape())
    big = array.dtype.byteorder == ">"
    path = write(tmp_path / "a.nii.gz", **{"array": array, **changed})
    if big:
        nib.Nifti1Image(array, PLANES["axial"], nib.Nifti1Header(endianness=">")).to_filename(path)

    assert not can_be_served_as_is(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd"])
def test_other_formats_are_not_sent_as_they_are(tmp_path, name):
    sitk.WriteImage(sitk.ReadImage(str(write(tmp_path / "b.nii", l_shape()))), str(tmp_path / name))

    assert not can_be_served_as_is(tmp_path / name)


@pytest.mark.parametrize("kind", ["cut short", "another checksum"])
def test_damaged_file_is_not_sent_as_it_is(tmp_path, kind):
    source = damaged(tmp_path / "a.nii.gz", kind)

    with pytest.raises(VolumeError, match=r"The image a\.nii\.gz cannot be read"):
        can_be_served_as_is(source)


def test_name_that_lies_about_compression_is_refused(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(write(tmp_path / "b.nii", l_shape()).read_bytes())
    with pytest.raises(VolumeError, match="gzip"):
        can_be_served_as_is(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("plane", [plane for plane in PLANES if "oblique" not in plane])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_slice_is_seen_from_the_feet_with_the_front_at_the_top(tmp_path, plane, name):
    array = np.random.default_rng(0).integers(0, 999, SHAPE).astype(np.int16)
    path = write(tmp_path / name, array, PLANES[plane])
    towards_ras = nib.as_closest_canonical(nib.load(path))
    middle = towards_ras.get_fdata()
    choices = [middle[:, :, k] for k in (middle.shape[2] // 2, (middle.shape[2] - 1) // 2)]

    shown, (row_mm, column_mm) = middle_axial_slice(path)

    # Columns from the patient's right, which is RAS's high end, to the left; rows from the front to the back.
    assert any(np.array_equal(shown, choice.T[::-1, ::-1]) for choice in choices)
    right_mm, front_mm = nib.affines.voxel_sizes(towards_ras.affine)[:2]
    assert (row_mm, column_mm) == pytest.approx((front_mm, right_mm))


def test_slice_does_not_need_what_lies_behind_it(tmp_path):
    path = write(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (64, 64, 400)).astype(np.int16))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.9)])

    assert middle_axial_slice(path)[0].shape == (64, 64)


def test_slice_of_nothing_measured_is_empty(tmp_path):
    path = write(tmp_path / "a.nii", np.full((4, 5, 6), np.nan, np.float32))

    assert not middle_axial_slice(path)[0].any()
