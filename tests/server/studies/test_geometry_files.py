"""A click reaches the voxel under the mouse and the mask comes back there, whatever the axes of the file.

Slicer reads files by ITK, so the place of the stored clicks and of the returned mask is compared, in millimetres, with
that of an object in ITK's reading.
"""

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.annotations.store import AnnotationStore
from lib.demo.local_server import LocalServer
from tests.physical import OBLIQUE, SPACING_MM, assert_same_place, extreme_voxels, l_shape, mask_lps_mm, read_mask
from tests.server.asking import infer

# Image axis n runs along world axis permutation[n], forwards or backwards.
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
QFORM_AND_SFORM_CODES = [(1, 0), (0, 2), (1, 1), (2, 1), (0, 1)]
NIFTI = [f"nifti_{n:02d}" for n in range(len(ORIENTATIONS))]
NRRD = [f"nrrd_{n:02d}" for n in (0, 17, 31, 46)]


def orientation(n):
    """Affine (4, 4) to RAS mm; every other one is turned obliquely."""
    permutation, signs = ORIENTATIONS[n]
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3)[:, permutation] * signs) * SPACING_MM
    affine[:3, 3] = (-31.0, 47.5, 12.25)
    if n % 2:
        affine[:3, :3] = OBLIQUE @ affine[:3, :3]
    return affine


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("geometry") / "studies"
    folder.mkdir()
    for n, name in enumerate(NIFTI):
        image = nib.Nifti1Image(l_shape(), None)
        qform_code, sform_code = QFORM_AND_SFORM_CODES[n % len(QFORM_AND_SFORM_CODES)]
        image.set_qform(orientation(n), qform_code)
        image.set_sform(orientation(n), sform_code)
        nib.save(image, folder / f"{name}.nii.gz")
    for name in NRRD:
        image = sitk.ReadImage(str(folder / f"{name.replace('nrrd', 'nifti')}.nii.gz"))
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"), True)
    return folder


@pytest.fixture(scope="module")
def server(studies):
    conf = {"model_dir": str(studies.parent / "model")}
    with LocalServer(studies, conf, studies.parent / "server.log") as server:
        yield server


@pytest.mark.parametrize("name", NIFTI + NRRD)
def test_clicks_and_mask_lie_where_itk_says(studies, server, tmp_path, name):
    (path,) = studies.glob(f"{name}.*")
    image = sitk.ReadImage(str(path))
    clicks = extreme_voxels(l_shape() > 500)

    answer = infer(server, name, {"lesion": clicks})

    stored = AnnotationStore(studies / "labels" / "extreme_points").load(name, "lesion")
    stored_mm = stored.geometry.voxel_to_lps(stored.points.foreground_voxel)
    np.testing.assert_allclose(stored_mm, [image.TransformIndexToPhysicalPoint(click) for click in clicks], atol=0.01)
    mask = read_mask(answer, tmp_path)
    assert_same_place(mask_lps_mm(mask), mask_lps_mm(image, threshold=500))
    assert mask.GetSize() == image.GetSize()


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("mistake", ["shifted", "mirrored"])
def test_a_shift_of_one_voxel_or_a_mirror_image_would_be_seen(axis, mistake):
    array = l_shape() > 500
    if mistake == "shifted":
        wrong = np.roll(array, 1, axis)
    else:
        low, high = np.argwhere(array)[:, axis].min(), np.argwhere(array)[:, axis].max()
        wrong = np.roll(np.flip(array, axis), low + high + 1 - array.shape[axis], axis)

    with pytest.raises(AssertionError):
        assert_same_place(np.argwhere(wrong), np.argwhere(array))
