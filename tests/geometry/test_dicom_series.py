"""A series of DICOM files as a volume: every voxel where its header says, or a sentence that says why not."""

import copy
import io

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, EnhancedMRImageStorage, JPEG2000Lossless, RLELossless
from scipy.spatial.transform import Rotation

from lib.geometry.dicom_frames import SeriesError
from lib.geometry.dicom_series import read_series, series_to_nifti
from lib.geometry.image_geometry import RAS_TO_LPS
from lib.geometry.volume import load_volume
from lib.geometry.volume_size import MAX_VOLUME_VARIABLE
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
    "tilt that no gantry has": (
        lambda s: move(s, lambda n: n * 2.5 * np.tan(np.radians(50))),
        "shifted by up to 32.8 mm in their own plane, and not as by a gantry that is tilted by up to 45 degrees",
    ),
    "shifted to and fro": (lambda s: move(s, lambda n: n % 2), "shifted by up to 1.0 mm in their own plane, and not"),
    "gantry tilt where one upright volume is expected": (
        lambda s: move(s, lambda n: n * 2.5 * np.tan(np.radians(15))),
        "stored as other than one upright volume (upright)",
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

    with pytest.raises(SeriesError, match="a file that is not a DICOM image"):
        series_to_nifti(tmp_path, tmp_path / "volume.nii.gz")


def test_no_slices_are_no_volume(tmp_path):
    with pytest.raises(SeriesError, match="is empty"):
        read_series(tmp_path)


def frames(instances):
    """The same slices as one Enhanced MR Image of many frames (DICOM PS3.3 A.36.2)."""
    enhanced = copy.deepcopy(instances[0])
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(enhanced, name)
    for name in ("RescaleSlope", "RescaleIntercept"):
        enhanced.pop(name, None)
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
    if "RescaleSlope" in instance or "RescaleIntercept" in instance:
        groups.PixelValueTransformationSequence = [
            rescaling(instance.get("RescaleSlope"), instance.get("RescaleIntercept"))
        ]
    return groups


def rescaling(slope, intercept):
    item = Dataset()
    item.RescaleType = "US"
    if slope is not None:
        item.RescaleSlope = slope
    if intercept is not None:
        item.RescaleIntercept = intercept
    return item


@pytest.mark.parametrize("plane", ["axial", "oblique"])
def test_frames_of_one_file_lie_where_the_headers_say(read, plane):
    instances = series(plane)

    read_mm, told_mm = mask_lps_mm(read(frames(instances)), threshold=500), object_lps_mm(instances)

    assert len(read_mm) == len(told_mm)
    assert share_in(read_mm, told_mm) == 1


def with_cosines(instances, axes, digits):
    """Turns a series: its columns, rows and slices run along the columns of axes (3, 3), in LPS."""
    for k, instance in enumerate(instances):
        instance.ImageOrientationPatient = [f"{number:.{digits}f}" for number in axes[:, :2].T.ravel()]
        instance.ImagePositionPatient = [f"{number:.{digits}f}" for number in axes[:, 2] * 2.5 * k]
    return instances


@pytest.mark.parametrize("degrees", [(20, -35, 50), (98.5, -142, -64.5), (1, 2, 3)])
@pytest.mark.parametrize("store", [list, frames])
def test_direction_cosines_of_four_digits_are_accepted(read, tmp_path, degrees, store):
    axes = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()

    read(store(with_cosines(series(), axes, 4)))

    read_axes_lps = RAS_TO_LPS[:3, :3] @ load_volume(tmp_path / "volume.nii.gz").geometry.affine_ras[:3, :3]
    np.testing.assert_allclose(read_axes_lps / np.linalg.norm(read_axes_lps, axis=0), axes, atol=2e-4)


@pytest.mark.parametrize("degrees", [0.1, 1, 5])
def test_rows_and_columns_that_are_not_at_right_angles_are_refused(read, degrees):
    sheared = np.eye(3)
    sheared[:2, 1] = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))

    with pytest.raises(SeriesError, match="does not say where its slices lie"):
        read(with_cosines(series(), sheared, 6))


INTERLEAVED = [*range(0, 12, 2), *range(1, 12, 2)]


@pytest.mark.parametrize("plane", ["axial", "oblique, slices downwards"])
@pytest.mark.parametrize("order", ["descending", "shuffled", "interleaved"])
def test_frames_of_one_file_are_put_in_order_of_position(read, order, plane):
    instances = series(plane)
    image = read(frames([instances[k] for k in INTERLEAVED] if order == "interleaved" else series(plane, order)))

    read_mm, told_mm = mask_lps_mm(image, threshold=500), object_lps_mm(instances)
    assert len(read_mm) == len(told_mm)
    assert share_in(read_mm, told_mm) == 1


def rescaled(instances, slopes, intercepts):
    """Slice n by the n-th slope and intercept; None leaves one out."""
    for instance, slope, intercept in zip(instances, slopes, intercepts, strict=True):
        del instance.RescaleSlope, instance.RescaleIntercept
        if slope is not None:
            instance.RescaleSlope = slope
        if intercept is not None:
            instance.RescaleIntercept = intercept
    return instances


def expected_intensities(instances):
    """(columns, rows, slices), by DICOM PS3.3 C.11.1, in order of position."""
    planes = sorted(instances, key=lambda instance: float(instance.ImagePositionPatient[2]))
    values = [
        instance.pixel_array * float(instance.get("RescaleSlope", 1)) + float(instance.get("RescaleIntercept", 0))
        for instance in planes
    ]
    return np.stack(values).T


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


def rle(instance):
    instance.compress(RLELossless)


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


def deflated(instance):
    instance.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


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


def huge(instances, **attributes):
    for instance in instances:
        for name, value in attributes.items():
            setattr(instance, name, value)
    return instances


def cut_short(instances):
    instances[-1].PixelData = instances[-1].PixelData[:100]
    return instances


OVERSIZED = {
    "more pixels than the file holds": (lambda: huge(series(), Rows=60000, Columns=60000), "is cut short"),
    "a slice that is cut short": (lambda: cut_short(series()), "is cut short: its header declares 960 bytes"),
    "frames that are cut short": (lambda: cut_short(frames(series())), "is cut short: its header declares 11520"),
    "more frames than places": (lambda: huge(frames(series()), NumberOfFrames=11), "11 frames, but places"),
    "frames without number": (lambda: huge(frames(series()), NumberOfFrames=0), "0 frames of 24 x 20"),
    "billions of frames": (lambda: huge(frames(series()), NumberOfFrames=2**31 - 1), "is cut short"),
    "no rows": (lambda: huge(series(), Rows=0), "12 frames of 24 x 0|1 frames of 24 x 0"),
    "odd bits": (lambda: huge(series(), BitsAllocated=7), "of 16 bits in 7, .*; expected 8, 16 or 32 bits"),
    "neither with nor without a sign": (
        lambda: huge(series(), PixelRepresentation=2),
        "PixelRepresentation 2; expected",
    ),
    "more bits than room": (lambda: huge(series(), BitsStored=17), "of 17 bits in 16"),
    "compressed, beyond the limit": (
        lambda: huge([rle(instance) or instance for instance in series()], Rows=65535, Columns=65535),
        "The series has the size 65535 x 65535 x 12.*expected at most 4 GB",
    ),
}


@pytest.mark.parametrize(("make", "sentence"), OVERSIZED.values(), ids=OVERSIZED)
def test_sizes_are_checked_before_pixels_are_read(read, monkeypatch, make, sentence):
    monkeypatch.setattr(sitk, "ReadImage", None)

    with pytest.raises(SeriesError, match=sentence):
        read(make())


def test_deflated_file_that_grows_beyond_the_limit_is_refused(read, monkeypatch):
    instances = series()
    deflated(instances[3])
    instances[3].PixelData = bytes(10**7)
    monkeypatch.setenv(MAX_VOLUME_VARIABLE, "0.005")

    with pytest.raises(SeriesError, match="A file of the series is larger than 0.005 GB"):
        read(instances)


def test_series_beyond_the_limit_is_refused(read, monkeypatch):
    monkeypatch.setenv(MAX_VOLUME_VARIABLE, "0.00002")

    with pytest.raises(SeriesError, match="The series has the size 24 x 20 x 12.*expected at most 2e-05 GB"):
        read(series())


GARBLED = [b"\xff", b"\0", b"abc", b"-1", b"9" * 8, b"1e999 ", b"nan ", b"\\\\"]


def elements(path):
    """Place and length of each value, those in sequences among them."""
    found = []

    def collect(dataset):
        for tag in list(dataset.keys()):
            element = dataset.get_item(tag)
            if isinstance(element, RawDataElement):
                found.append((element.value_tell, element.length))
            else:
                found.append((element.file_tell, 8))
                for item in element.value:
                    collect(item)

    collect(pydicom.dcmread(path, stop_before_pixels=True))
    return [(place, length) for place, length in found if 0 < length < 2**16]


@pytest.mark.filterwarnings("ignore")  # pydicom names what is damaged
@pytest.mark.parametrize("store", [list, frames])
@pytest.mark.parametrize("slopes", [["2"] * 3, ["1", "0.5", "2"]], ids=["the same", "by slice"])
def test_damaged_header_is_read_or_refused(tmp_path, store, slopes):
    folder = tmp_path / "series"
    folder.mkdir()
    for instance in store(rescaled(series()[:3], slopes, ["0"] * 3)):
        instance.save_as(folder / f"{instance.SOPInstanceUID}.dcm", write_like_original=False)
    damaged = sorted(folder.iterdir())[0]
    whole = damaged.read_bytes()
    refused = 0

    for n, (place, length) in enumerate(elements(damaged)):
        for garbage in (GARBLED[n % 8], GARBLED[(n + 3) % 8], GARBLED[(n + 6) % 8]):
            value = (garbage * length)[:length]
            damaged.write_bytes(whole[:place] + value + whole[place + length :])
            try:
                series_to_nifti(folder, tmp_path / "volume.nii")
            except SeriesError as error:
                refused += 1
                assert str(tmp_path) not in str(error)

    assert refused > 20


REQUIRED = [
    "Rows",
    "Columns",
    "BitsStored",
    "PixelRepresentation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "PixelData",
]


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("missing_in", [slice(0, 1), slice(5, 6), slice(None)], ids=["first", "middle", "all"])
def test_series_without_what_it_takes_is_refused(read, name, missing_in):
    instances = series()
    for instance in instances[missing_in]:
        delattr(instance, name)

    with pytest.raises(SeriesError):
        read(instances)


@pytest.mark.parametrize("name", ["PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"])
def test_frames_without_a_place_are_refused(read, name):
    enhanced = frames(series())[0]
    for groups in (*enhanced.SharedFunctionalGroupsSequence, *enhanced.PerFrameFunctionalGroupsSequence):
        if name in groups:
            delattr(groups, name)

    with pytest.raises(SeriesError, match="does not say where its slices lie"):
        read([enhanced])
