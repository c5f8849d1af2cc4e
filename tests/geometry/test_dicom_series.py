"""Voxels of DICOM series: their positions and intensities."""

import io

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless
from scipy.spatial.transform import Rotation

from lib.geometry.image_geometry import RAS_TO_LPS
from lib.geometry.volume import load_volume
from tests.geometry.dicom_files import (
    assert_lies_right,
    deflated,
    expected_intensities,
    frames,
    move,
    rescaled,
    rescaling,
    rle,
    with_cosines,
)
from tests.physical import ORDERS, PLANES, series


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("plane", PLANES)
def test_voxels_lie_where_the_headers_say(read, plane, order):
    instances = series(plane, order)

    assert_lies_right(read(instances), instances)


def test_index_runs_along_columns_then_rows_then_the_cross_product_of_both(read):
    """The order in which OHIF stacks a series: its voxel indices are those of the volume."""
    instances = series("axial, slices downwards", "shuffled")
    image = read(instances)

    for instance in instances:
        position = [float(number) for number in instance.ImagePositionPatient]
        column, row, k = image.TransformPhysicalPointToIndex(position)
        plane = sitk.GetArrayFromImage(image)[k]
        assert (column, row) == (0, 0)
        assert np.array_equal(plane, instance.pixel_array)
    normal = np.cross(*np.array(instances[0].ImageOrientationPatient, dtype=float).reshape(2, 3))
    heights = [image.TransformIndexToPhysicalPoint((0, 0, k)) @ normal for k in range(image.GetSize()[2])]
    assert np.all(np.diff(heights) > 0)


def test_stored_values_become_intensities(read):
    instances = series()
    for instance in instances:
        instance.RescaleSlope, instance.RescaleIntercept = "2", "-1024"

    assert sitk.GetArrayFromImage(read(instances)).max() == 2 * 900 - 1024


@pytest.mark.parametrize("shift_mm", [0.02, 0.06])
def test_rounded_headers_are_accepted(read, shift_mm):
    """Less than a tenth of a voxel, which reaches no neighbour."""
    instances = move(series(), lambda n: shift_mm * (n % 2))

    assert read(instances).GetSize() == (24, 20, 12)


@pytest.mark.parametrize("degrees", [(20, -35, 50), (98.5, -142, -64.5), (1, 2, 3)])
@pytest.mark.parametrize("store", [list, frames])
def test_direction_cosines_of_four_digits_are_accepted(read, tmp_path, degrees, store):
    axes = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()

    read(store(with_cosines(series(), axes, 4)))

    read_axes_lps = RAS_TO_LPS[:3, :3] @ load_volume(tmp_path / ".nii.gz").geometry.affine_ras[:3, :3]
    np.testing.assert_allclose(read_axes_lps / np.linalg.norm(read_axes_lps, axis=0), axes, atol=2e-4)


INTERLEAVED = [*range(0, 12, 2), *range(1, 12, 2)]


@pytest.mark.parametrize("plane", ["axial", "oblique, slices downwards"])
@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled", "interleaved"])
def test_frames_of_one_file_are_put_in_order_of_position(read, order, plane):
    instances = series(plane)
    image = read(frames([instances[k] for k in INTERLEAVED] if order == "interleaved" else series(plane, order)))

    assert_lies_right(image, instances)


RESCALED = {
    "of PET, another slope in each slice": ([f"{0.3 + 0.01 * n:g}" for n in range(12)], ["0"] * 12),
    "first whole, others small": (["1"] + ["0.01"] * 11, ["0"] * 12),
    "half and half": (["1"] * 6 + ["0.1"] * 6, ["0"] * 12),
    "other intercepts": (["2"] * 12, [str(-n) for n in range(12)]),
    "missing in some": ([None, "2"] * 6, [None, "-1000"] * 6),
    "intercept missing in some": (["2"] * 12, [None, "-1000"] * 6),
    "the same, whole": (["3"] * 12, ["-1024"] * 12),
    "the same, not whole": (["0.37"] * 12, ["0.5"] * 12),
}


@pytest.mark.parametrize(("slopes", "intercepts"), RESCALED.values(), ids=RESCALED)
@pytest.mark.parametrize("store", ["slices", "frames", "frames from head to feet"])
def test_each_slice_is_rescaled_by_its_own_rule(read, slopes, intercepts, store):
    instances = rescaled(series(), slopes, intercepts)
    expected = expected_intensities(instances)
    if store != "slices":
        instances = frames(instances[::-1] if "head" in store else instances)

    np.testing.assert_allclose(sitk.GetArrayFromImage(read(instances)).T, expected, rtol=1e-12, atol=1e-9)


def test_rule_of_all_frames_may_stand_apart_from_them(read):
    enhanced = frames(rescaled(series(), ["0.5"] * 6 + [None] * 6, ["-3"] * 6 + [None] * 6))[0]
    enhanced.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [rescaling("7", "100")]
    stored = enhanced.pixel_array.astype(float)

    image = sitk.GetArrayFromImage(read([enhanced]))

    np.testing.assert_allclose(image[:6], stored[:6] * 0.5 - 3)
    np.testing.assert_allclose(image[6:], stored[6:] * 7 + 100)


@pytest.mark.parametrize("slices", [range(12), range(4), [7]])
def test_table_of_intensities_is_applied(read, slices):
    instances = series()
    for instance in instances:
        instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 10, 9, 0
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [1024, 0, 16], "US"
    table.add_new("LUTData", "US", [(7 * value) % 65536 for value in range(1024)])
    for k in slices:
        del instances[k].RescaleSlope, instances[k].RescaleIntercept
        instances[k].ModalityLUTSequence = [table]

    image = sitk.GetArrayFromImage(read(instances))

    for k, instance in enumerate(instances):
        np.testing.assert_array_equal(image[k], instance.pixel_array * (7 if k in slices else 1))


def test_slices_with_and_without_a_sign_are_read(read):
    instances = series()
    for instance in instances[:6]:
        instance.PixelRepresentation = 0
        instance.PixelData = np.full((20, 24), 60000, "<u2").tobytes()

    image = sitk.GetArrayFromImage(read(instances))

    assert (image[:6] == 60000).all()
    np.testing.assert_array_equal(image[6], instances[6].pixel_array)


def jpeg_2000(instance):
    """Pillow writes lossless JPEG 2000 of 16 bits without a sign."""
    instance.PixelRepresentation = 0
    planes = np.atleast_3d(instance.pixel_array.astype(np.uint16).T).T
    streams = []
    for plane in planes:
        stream = io.BytesIO()
        Image.fromarray(plane).save(stream, "JPEG2000", no_jp2=True)
        streams.append(stream.getvalue())
    instance.PixelData = encapsulate(streams)
    instance["PixelData"].is_undefined_length = True
    instance.file_meta.TransferSyntaxUID = JPEG2000Lossless


@pytest.mark.parametrize("compress", [rle, jpeg_2000, deflated])
@pytest.mark.parametrize("slopes", [["2"] * 12, ["1"] * 6 + ["0.01"] * 6], ids=["the same", "by slice"])
@pytest.mark.parametrize("store", [list, frames])
def test_compressed_pixels_are_read(read, compress, slopes, store):
    instances = rescaled(series(), slopes, ["-5"] * 12)
    expected = expected_intensities(instances)
    stored = store(instances)
    for instance in stored:
        compress(instance)

    np.testing.assert_allclose(sitk.GetArrayFromImage(read(stored)).T, expected, rtol=1e-12)
