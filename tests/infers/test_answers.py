"""Files of masks: positions of labelled voxels in mm, read by two libraries."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from lib.geometry.image_geometry import ImageGeometry
from lib.infers.answers import Stopwatch, write_mask

SHAPE = (9, 7, 5)
TURN = Rotation.from_euler("xyz", [10, -20, 15], degrees=True).as_matrix()
GRIDS = {
    "plain": nib.affines.from_matvec(np.diag([1.0, 1.0, 1.0]), [0, 0, 0]),
    "anisotropic": nib.affines.from_matvec(np.diag([0.5, 0.6, 6.5]), [-20, 30, 40]),
    "flipped": nib.affines.from_matvec(np.diag([-0.5, 0.6, -6.5]), [20, -30, 40]),
    "axes turned": nib.affines.from_matvec(np.array([[0, 0, 6.5], [-0.5, 0, 0], [0, 0.6, 0]]), [1, 2, 3]),
    "oblique": nib.affines.from_matvec(TURN * [0.5, 0.6, 6.5], [5, -60, 30]),
    "oblique and left-handed": nib.affines.from_matvec(TURN * [-0.5, 0.6, 6.5], [5, -60, 30]),
}
EXTENSIONS = [".nrrd", ".nii.gz", ".nii"]


@pytest.fixture
def mask():
    """Mask with different octants, which reveals flips and swaps of axes."""
    mask = (np.random.default_rng(0).random(SHAPE) < 0.2).astype(np.uint8)
    mask[1, 2, 3] = 2
    return mask


def written(mask, affine, tmp_path, monkeypatch, **request):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return write_mask(mask, ImageGeometry(mask.shape, affine), request)


def labelled_places(mask, affine_ras):
    """Return label and RAS position in mm of each labelled voxel, (N, 4)."""
    voxels = np.argwhere(mask)
    return np.c_[mask[tuple(voxels.T)], voxels @ affine_ras[:3, :3].T + affine_ras[:3, 3]]


def places_that_itk_reads(path):
    image = sitk.ReadImage(path)
    array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    voxels = np.argwhere(array)
    lps_mm = np.array([image.TransformIndexToPhysicalPoint(voxel.tolist()) for voxel in voxels])
    return np.c_[array[tuple(voxels.T)], lps_mm * [-1, -1, 1]]


def same_places(found, expected):
    order = [places[np.lexsort(places.round(2).T)] for places in (found, expected)]
    np.testing.assert_allclose(*order, atol=1e-3)


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_labels_have_their_position_in_the_image(mask, affine, extension, tmp_path, monkeypatch):
    path = written(mask, affine, tmp_path, monkeypatch, result_extension=extension)

    same_places(places_that_itk_reads(path), labelled_places(mask, affine))
    if extension != ".nrrd":
        image = nib.load(path)
        same_places(labelled_places(np.asarray(image.dataobj), image.affine), labelled_places(mask, affine))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_voxels_have_the_order_of_the_image(mask, extension, tmp_path, monkeypatch):
    # OHIF overlays voxels of mask and image by their order only.
    path = written(mask, GRIDS["oblique and left-handed"], tmp_path, monkeypatch, result_extension=extension)

    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(path)).transpose(2, 1, 0), mask)


@pytest.mark.parametrize("request_params", [{}, {"result_extension": None}, {"result_extension": ""}])
def test_nifti_is_the_default(mask, request_params, tmp_path, monkeypatch):
    path = written(mask, GRIDS["plain"], tmp_path, monkeypatch, **request_params)

    assert path.endswith(".nii.gz")
    assert nib.load(path).shape == SHAPE


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("dtype", [None, "uint8", "uint16", "int16", "int32", "float32"])
def test_voxels_have_the_requested_type(mask, extension, dtype, tmp_path, monkeypatch):
    path = written(mask, GRIDS["plain"], tmp_path, monkeypatch, result_extension=extension, result_dtype=dtype)

    array = sitk.GetArrayFromImage(sitk.ReadImage(path))
    assert array.dtype == np.dtype(dtype or "uint8")
    np.testing.assert_array_equal(array.transpose(2, 1, 0), mask)


@pytest.mark.parametrize(("compress", "encoding"), [(False, b"raw"), (True, b"gzip")])
def test_nrrd_is_compressed_on_request(mask, compress, encoding, tmp_path, monkeypatch):
    path = written(mask, GRIDS["plain"], tmp_path, monkeypatch, result_extension=".nrrd", result_compress=compress)

    header = open(path, "rb").read().split(b"\n\n")[0]  # noqa: SIM115
    assert b"encoding: " + encoding in header
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(path)).transpose(2, 1, 0), mask)


def test_each_answer_has_its_own_file(mask, tmp_path, monkeypatch):
    paths = {written(mask, GRIDS["plain"], tmp_path, monkeypatch) for _ in range(5)}

    assert len(paths) == 5


def test_laps_of_a_stopwatch_add_up_to_its_total():
    stopwatch = Stopwatch()
    for stage in ("load", "segment", "write"):
        sum(range(10**5))
        stopwatch.lap(stage)

    total = stopwatch.latencies.pop("total")
    assert list(stopwatch.latencies) == ["load", "segment", "write"]
    assert total == pytest.approx(sum(stopwatch.latencies.values()), abs=2e-3)
