import os

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from lib.geometry import volume_files
from lib.geometry.volume import VolumeError, load_volume, read_geometry

AFFINE = np.array([[0, -0.5, 0, 40], [0.6, 0, 0, -20], [0, 0, 6.5, 7], [0, 0, 0, 1.0]])


def save(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), path)
    return path


def test_nifti_keeps_its_voxel_order_and_place(tmp_path):
    array = np.random.default_rng(0).random((4, 5, 6))
    path = save(tmp_path / "a.nii.gz", array)

    volume = load_volume(path)

    np.testing.assert_array_equal(volume.array, array.astype(np.float32))
    np.testing.assert_allclose(volume.geometry.affine_ras, AFFINE, atol=1e-6)
    assert read_geometry(path).is_close(volume.geometry)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 1, 1), (8, 8, 8, 3), (8, 8, 1, 8), (8, 8, 8, 1, 2)])
def test_only_volumes_are_taken(tmp_path, shape):
    path = save(tmp_path / "a.nii.gz", np.ones(shape))

    with pytest.raises(VolumeError, match=r"a.nii.gz has the size 8 x 8.*; expected a 3D volume"):
        load_volume(path)


def test_broken_and_missing_files_are_named(tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")

    with pytest.raises(VolumeError, match="broken.nii.gz cannot be read"):
        load_volume(tmp_path / "broken.nii.gz")
    with pytest.raises(VolumeError, match="missing.nii.gz"):
        load_volume(tmp_path / "missing.nii.gz")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_masks_with_values_that_are_not_finite_are_refused(tmp_path, value):
    array = np.ones((4, 4, 4))
    array[1, 2, 3] = value
    path = save(tmp_path / "a.nii.gz", array)

    with pytest.raises(VolumeError, match="not finite; expected 0 and the values of labels"):
        load_volume(path, sentinels=False)


@pytest.mark.parametrize("sform_code", [2, 4])
def test_nifti_that_tells_of_two_places_is_refused(tmp_path, sform_code):
    """ITK, and so Slicer, goes by the qform here, nibabel by the sform: the mask would lie beside the image."""
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.float32), AFFINE)
    image.set_sform(AFFINE, sform_code)
    moved = AFFINE.copy()
    moved[0, 3] += 12
    image.set_qform(moved, 1)
    nib.save(image, tmp_path / "a.nii.gz")

    with pytest.raises(VolumeError, match="qform and the sform of the image a.nii.gz place it 12.0 mm apart"):
        load_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(("qform_code", "sform_code"), [(0, 1), (1, 0), (1, 1), (2, 1), (0, 4), (1, 2)])
def test_nifti_lies_where_itk_says(tmp_path, qform_code, sform_code):
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.float32), AFFINE)
    image.set_sform(AFFINE, sform_code)
    image.set_qform(AFFINE, qform_code)
    nib.save(image, tmp_path / "a.nii.gz")

    lps_mm = sitk.ReadImage(str(tmp_path / "a.nii.gz")).TransformIndexToPhysicalPoint((1, 2, 3))
    read_mm = read_geometry(tmp_path / "a.nii.gz").voxel_to_lps(np.array([1, 2, 3]))
    np.testing.assert_allclose(read_mm, lps_mm, atol=1e-4)


def test_nifti_that_tells_of_no_place_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.float32), None), tmp_path / "a.nii.gz")

    with pytest.raises(VolumeError, match="a.nii.gz does not tell where it lies"):
        load_volume(tmp_path / "a.nii.gz")


# The last has one of the largest dot products that four digits leave: 1.5e-4.
TURNS = [(20, -35, 50), (1, 2, 3), (89, 0.5, -0.5), (-44, 33, 77), (98.5, -142, -64.5)]


@pytest.mark.parametrize("degrees", TURNS)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd"])
def test_direction_cosines_of_four_digits_are_at_right_angles(tmp_path, degrees, name):
    axes = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().round(4)
    if name.endswith("nrrd"):
        image = sitk.GetImageFromArray(np.ones((6, 5, 4), np.float32))
        image.SetDirection(axes.ravel().tolist())
        image.SetSpacing((0.5, 0.6, 6.5))
        sitk.WriteImage(image, str(tmp_path / name))
    else:
        save(tmp_path / name, np.ones((4, 5, 6)), nib.affines.from_matvec(axes * [0.5, 0.6, 6.5], [5, -60, 30]))

    np.testing.assert_allclose(load_volume(tmp_path / name).geometry.spacing_mm, (0.5, 0.6, 6.5), rtol=1e-4)


@pytest.mark.parametrize("degrees", [1, 5, 15, -20])
@pytest.mark.parametrize("axes", [(0, 2), (1, 2), (0, 1)])
def test_tilted_gantry_is_refused(tmp_path, degrees, axes):
    tilted, (to, along) = np.eye(3), axes
    tilted[to, along] = np.tan(np.radians(degrees))
    affine = nib.affines.from_matvec(Rotation.from_euler("xyz", TURNS[0], degrees=True).as_matrix() @ tilted)

    with pytest.raises(VolumeError, match="axes of the image a.nii.gz are not at right angles"):
        read_geometry(save(tmp_path / "a.nii.gz", np.ones((4, 5, 6)), affine))


@pytest.mark.parametrize("trailing", [(1,), (1, 1), (1, 1, 1)])
def test_trailing_axes_of_length_1_are_dropped(tmp_path, trailing):
    array = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", array.reshape(4, 5, 6, *trailing))

    np.testing.assert_array_equal(load_volume(path).array, array)
    assert read_geometry(path).shape == load_volume(path).geometry.shape == (4, 5, 6)
    np.testing.assert_allclose(read_geometry(path).affine_ras, AFFINE, atol=1e-6)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("mm", 1.0), ("micron", 1e3), ("unknown", 1.0)])
@pytest.mark.parametrize(("qform_code", "sform_code"), [(0, 1), (1, 0), (1, 1), (0, 2)])
def test_units_of_nifti_become_millimetres_as_in_itk(tmp_path, unit, factor, qform_code, sform_code):
    affine = np.diag([factor, factor, factor, 1]) @ AFFINE
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.float32), affine)
    image.set_sform(affine, sform_code)
    image.set_qform(affine, qform_code)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")

    geometry = read_geometry(tmp_path / "a.nii")

    np.testing.assert_allclose(geometry.affine_ras, AFFINE, rtol=1e-5, atol=1e-5)
    lps_mm = sitk.ReadImage(str(tmp_path / "a.nii")).TransformIndexToPhysicalPoint((1, 2, 3))
    np.testing.assert_allclose(geometry.voxel_to_lps(np.array([1, 2, 3])), lps_mm, atol=1e-4)


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [(2.0, -1024.0, [-1024, -1022, 974]), (0.0, 5.0, [0, 1, 999]), (np.nan, np.nan, [0, 1, 999])],
)
def test_scaling_of_nifti_is_that_of_nibabel(tmp_path, slope, intercept, expected):
    array = np.resize(np.array([0, 1, 999], np.int16), (3, 4, 5))
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(array.shape)
    header.set_sform(AFFINE, 1)
    header["scl_slope"], header["scl_inter"], header["vox_offset"], header["magic"] = slope, intercept, 352, b"n+1"
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4) + array.tobytes(order="F"))

    volume = load_volume(tmp_path / "a.nii")

    np.testing.assert_array_equal(np.unique(volume.array), expected)
    np.testing.assert_array_equal(volume.array, nib.load(tmp_path / "a.nii").get_fdata())


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_numbers_of_every_size_and_byte_order_are_read(tmp_path, kind, order, image_class):
    array = np.random.default_rng(0).integers(0, 100, (4, 5, 6)).astype(np.dtype(kind).newbyteorder(order))
    header = image_class.header_class(endianness=order)
    header.set_data_dtype(kind)
    nib.save(image_class(array, AFFINE, header, dtype=array.dtype), tmp_path / "a.nii.gz")

    np.testing.assert_array_equal(load_volume(tmp_path / "a.nii.gz").array, array)


COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize("kind", [COLOUR, np.complex64, np.complex128], ids=str)
def test_nifti_of_other_than_single_numbers_is_refused(tmp_path, kind):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), kind), AFFINE), tmp_path / "a.nii.gz")

    with pytest.raises(VolumeError, match="a.nii.gz cannot be read .*colours, vectors or complex numbers"):
        load_volume(tmp_path / "a.nii.gz")


FILLS = [np.nan, np.inf, -np.inf, -3.4e38, 3.4028235e38, 1e20, 9.97e36, -1e300, 1.7e308, -2147483648, 1.5e9]


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd"])
def test_values_of_places_where_nothing_was_measured_become_the_lowest_of_the_others(tmp_path, fill, extension):
    array = np.random.default_rng(0).uniform(-1024, 3000, (4, 5, 6))
    measured = array.copy()
    array[:2] = fill
    sitk.WriteImage(sitk.GetImageFromArray(array.transpose()), str(tmp_path / f"a{extension}"))

    read = load_volume(tmp_path / f"a{extension}").array

    np.testing.assert_allclose(read[2:], measured[2:], rtol=1e-6)
    assert (read[:2] == read[2:].min()).all()


@pytest.mark.parametrize("largest", [4095, 1.7e6, 1e9])
def test_values_that_a_scanner_measures_stay(tmp_path, largest):
    array = np.linspace(-largest, largest, 120).reshape(4, 5, 6).astype(np.float32)

    np.testing.assert_array_equal(load_volume(save(tmp_path / "a.nii", array)).array, array)


@pytest.mark.parametrize("fill", [np.nan, np.inf, -3.4e38])
def test_image_where_nothing_was_measured_is_refused(tmp_path, fill):
    with pytest.raises(VolumeError, match="a.nii.gz holds no value within .*; expected intensities. Choose another"):
        load_volume(save(tmp_path / "a.nii.gz", np.full((4, 5, 6), fill)))


def test_log_counts_the_voxels_without_a_value_in_one_line(tmp_path, caplog):
    caplog.set_level("INFO")
    array = np.random.default_rng(0).uniform(-1024, 3000, (4, 5, 6))
    load_volume(save(tmp_path / "a.nii.gz", array))
    assert not caplog.messages

    array[:2], array[2, 0, 0] = np.nan, 1e20
    load_volume(save(tmp_path / "a.nii.gz", array))

    (message,) = caplog.messages
    assert message.startswith("The image a.nii.gz has no measured value in 61 voxels")
    assert str(tmp_path) not in message


@pytest.mark.parametrize("fill", [np.nan, 1e20])
def test_value_missing_in_one_piece_of_a_file_becomes_the_lowest_of_all(tmp_path, monkeypatch, fill):
    monkeypatch.setattr(volume_files, "_CHUNK_VOXELS", 7)
    array = np.arange(120, dtype=np.float32).reshape(4, 5, 6)[::-1].copy()
    array[1, 2, 3] = fill

    read = load_volume(save(tmp_path / "a.nii", array)).array

    array[1, 2, 3] = 0
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("name", ["case01.nii.gz", "case01.nii", "case01.nrrd"])
def test_link_is_read_by_its_own_name(tmp_path, name):
    array = np.random.default_rng(0).random((6, 5, 4)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name), name.endswith("nrrd"))
    direct = load_volume(tmp_path / name)
    (tmp_path / "store").mkdir()
    (tmp_path / name).rename(tmp_path / "store" / "ab12cd")
    (tmp_path / name).symlink_to(tmp_path / "store" / "ab12cd")

    linked = load_volume(tmp_path / name)

    np.testing.assert_array_equal(linked.array, direct.array)
    assert linked.geometry.is_close(direct.geometry)
    with pytest.raises(VolumeError, match="ab12cd cannot be read .its name has none of the extensions"):
        load_volume(tmp_path / "store" / "ab12cd")


@pytest.mark.parametrize(
    "name",
    ["a.png", "a.mha", "a.mhd", "a.nhdr", "a.dcm", "a.hdr", "a.img", "a.vtk", "a.mgz", "a.gz", "a.nii.bz2", "a", "nii"],
)
def test_other_formats_are_refused(tmp_path, name):
    save(tmp_path / "b.nii", np.ones((4, 5, 6))).rename(tmp_path / name)

    with pytest.raises(VolumeError, match=f"{name} cannot be read .its name has none of the extensions .nii.gz, .nii"):
        load_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["b.nii", "b.nii.gz", "b.nrrd"])
@pytest.mark.parametrize("other", ["a.nii", "a.nii.gz", "a.nrrd"])
def test_content_that_is_not_what_the_name_tells_is_refused(tmp_path, name, other):
    if name[1:] == other[1:]:
        return
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((6, 5, 4), np.float32)), str(tmp_path / name))
    (tmp_path / name).rename(tmp_path / other)

    with pytest.raises(VolumeError, match=f"{other} cannot be read .its content is not that of"):
        load_volume(tmp_path / other)


def test_voxels_of_nifti_in_another_file_are_refused(tmp_path):
    nib.save(nib.Nifti1Pair(np.ones((4, 5, 6), np.float32), AFFINE), tmp_path / "b.img")
    (tmp_path / "b.hdr").rename(tmp_path / "a.nii")

    with pytest.raises(VolumeError, match="its content is not that of a NIfTI file with its voxels"):
        load_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd"])
def test_folder_and_pipe_are_no_images(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).mkdir()
    os.mkfifo(tmp_path / name)

    for path in (tmp_path / "folder" / name, tmp_path / name):
        with pytest.raises(VolumeError, match=f"The image {name} is not a file"):
            load_volume(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "compressed.nrrd"])
@pytest.mark.parametrize("kept", [0, 3, 100, 351, 500, 0.5, 0.9])
def test_file_that_is_cut_short_is_refused(tmp_path, name, kept):
    array = np.random.default_rng(0).random((20, 18, 12)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name), name.startswith("compressed"))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else kept])

    with pytest.raises(VolumeError, match=f"The image {name} "):
        load_volume(tmp_path / name)


def test_message_names_the_file_and_not_its_folder(tmp_path):
    folder = tmp_path / "Doe^Jane"
    folder.mkdir()
    (folder / "a\n\udcff.nii").write_bytes(b"no image")

    with pytest.raises(VolumeError) as error:
        load_volume(folder / "a\n\udcff.nii")

    assert "The image a??.nii cannot be read" in str(error.value)
    assert "Doe" not in str(error.value)
