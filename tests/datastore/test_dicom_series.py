"""A series of DICOM files as a volume: every voxel where its header says, or a sentence that says why not."""

import copy

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from lib.datastore.dicom_series import SeriesError, even_grid, series_to_nifti
from tests.physical import ORDERS, PLANES, mask_lps_mm, object_lps_mm, series, share_in


@pytest.fixture
def read(tmp_path):
    """Stores instances under names in no order, and reads them as a volume."""

    def store_and_read(instances):
        folder = tmp_path / "series"
        folder.mkdir()
        for instance in instances:
            instance.save_as(folder / f"{instance.SOPInstanceUID}.dcm", write_like_original=False)
        series_to_nifti(folder, tmp_path / "volume.nii.gz")
        return sitk.ReadImage(str(tmp_path / "volume.nii.gz"))

    return store_and_read


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("plane", PLANES)
def test_voxels_lie_where_the_headers_say(read, plane, order):
    instances = series(plane, order)

    image = read(instances)

    read_mm, told_mm = mask_lps_mm(image, threshold=500), object_lps_mm(instances)
    assert len(read_mm) == len(told_mm)
    assert share_in(read_mm, told_mm) == 1


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


def move(instances, millimetres):
    """Moves slice n by millimetres(n) along the columns, and leaves the rest of the header."""
    for n, instance in enumerate(instances):
        direction = np.array(instance.ImageOrientationPatient[3:], dtype=float)
        position = np.array(instance.ImagePositionPatient, dtype=float) + direction * millimetres(n)
        instance.ImagePositionPatient = [f"{number:.6f}" for number in position]
    return instances


def without(instances, *slices):
    return [instance for n, instance in enumerate(instances) if n not in slices]


def turned(instances):
    instances[3].ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    return instances


def changed(instances, **attributes):
    for name, value in attributes.items():
        setattr(instances[3], name, value)
    return instances


def unplaced(instances):
    del instances[3].ImagePositionPatient
    return instances


REFUSED = {
    "gantry tilt of 15 degrees": (
        lambda s: move(s, lambda n: n * 2.5 * np.tan(np.radians(15))),
        "shifted by up to 7.4",
    ),
    "gantry tilt of 1 degree": (
        lambda s: move(s, lambda n: n * 2.5 * np.tan(np.radians(1))),
        "as with a tilted gantry",
    ),
    "slice missing in the middle": (lambda s: without(s, 5), "unevenly spaced, from 2.50 to 5.00 mm"),
    "slice missing near the end": (lambda s: without(s, 10), "slices may be missing in the archive"),
    "two stacks of other spacing": (lambda s: without(s, 7, 9, 11), "unevenly spaced"),
    "time series": (lambda s: s + series("axial", "shuffled"), "more than one slice at the same position, 12 in all"),
    "localizer": (turned, "not parallel"),
    "other size": (lambda s: changed(s, PixelSpacing=["0.5", "0.5"]), "differ in size or pixel spacing"),
    "colour": (lambda s: changed(s, SamplesPerPixel=3), "colour images"),
    "no position": (unplaced, "does not say where its slices lie"),
    "a single slice": (lambda s: s[:1], "has 1 slice"),
    "frames and slices": (lambda s: changed(s, NumberOfFrames="2"), "several files of many frames"),
}


@pytest.mark.parametrize(("spoil", "sentence"), REFUSED.values(), ids=REFUSED)
def test_series_that_is_no_even_grid_is_refused(read, spoil, sentence):
    with pytest.raises(SeriesError) as error:
        read(spoil(series()))

    assert sentence in str(error.value)


@pytest.mark.parametrize("shift_mm", [0.02, 0.06])
def test_rounded_headers_are_accepted(read, shift_mm):
    """Less than a tenth of a voxel, which reaches no neighbour."""
    instances = move(series(), lambda n: shift_mm * (n % 2))

    assert read(instances).GetSize() == (24, 20, 12)


def test_file_that_is_no_dicom_is_named(tmp_path):
    (tmp_path / "broken.dcm").write_bytes(b"this is no image")

    with pytest.raises(SeriesError, match="a file that is no DICOM image"):
        series_to_nifti(tmp_path, tmp_path / "volume.nii.gz")


def test_no_slices_are_no_volume():
    with pytest.raises(SeriesError, match="has 0 slice"):
        even_grid([])


def frames(instances):
    """The same slices as one Enhanced MR Image of many frames (DICOM PS3.3 A.36.2)."""
    enhanced = copy.deepcopy(instances[0])
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(enhanced, name)
    enhanced.NumberOfFrames = len(instances)
    enhanced.PixelData = b"".join(instance.PixelData for instance in instances)
    shared = Dataset()
    shared.PlaneOrientationSequence = [part(instances[0], "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [part(instances[0], "PixelSpacing", "SliceThickness", "SpacingBetweenSlices")]
    enhanced.SharedFunctionalGroupsSequence = [shared]
    enhanced.PerFrameFunctionalGroupsSequence = [frame_groups(instance) for instance in instances]
    return [enhanced]


def part(instance, *names):
    item = Dataset()
    for name in names:
        setattr(item, name, getattr(instance, name))
    return item


def frame_groups(instance):
    groups = Dataset()
    groups.PlanePositionSequence = [part(instance, "ImagePositionPatient")]
    return groups


@pytest.mark.parametrize("plane", ["axial", "oblique"])
def test_frames_of_one_file_lie_where_the_headers_say(read, plane):
    instances = series(plane)

    read_mm, told_mm = mask_lps_mm(read(frames(instances)), threshold=500), object_lps_mm(instances)

    assert len(read_mm) == len(told_mm)
    assert share_in(read_mm, told_mm) == 1


@pytest.mark.parametrize("order", ["descending", "shuffled"])
def test_frames_out_of_order_are_refused(read, order):
    with pytest.raises(SeriesError, match="frames of the series are not in order of position"):
        read(frames(series("axial", order)))
