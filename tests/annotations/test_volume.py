import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.annotations.volume import VolumeError, load_volume, read_geometry

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


def test_nrrd_voxels_lie_where_itk_says(tmp_path):
    image = sitk.GetImageFromArray(np.arange(120, dtype=np.float32).reshape(6, 5, 4))
    image.SetSpacing((0.5, 0.6, 6.5))
    image.SetOrigin((3, -7, 11))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))

    volume = load_volume(tmp_path / "a.nrrd")

    assert volume.array[1, 2, 3] == image.GetPixel(1, 2, 3)
    lps_mm = image.TransformIndexToPhysicalPoint((1, 2, 3))
    np.testing.assert_allclose(volume.geometry.voxel_to_lps(np.array([1, 2, 3])), lps_mm, atol=1e-5)
    assert read_geometry(tmp_path / "a.nrrd").is_close(volume.geometry)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 8, 3)])
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


def test_values_that_are_not_finite_are_refused(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.full((4, 4, 4), np.nan))

    with pytest.raises(VolumeError, match="not finite"):
        load_volume(path)


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


def test_sheared_grid_is_refused(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 2] = 0.4

    with pytest.raises(VolumeError, match="axes of the image a.nii.gz are not at right angles"):
        load_volume(save(tmp_path / "a.nii.gz", np.ones((4, 5, 6)), sheared))
