"""Series of several volumes and of tilted slices: names of volumes, and positions of voxels."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from lib.geometry.dicom_frames import SeriesError
from lib.geometry.dicom_series import read_series
from tests.geometry.dicom_files import assert_lies_right, copies, frames, set_echo, stored, tilted
from tests.installed import need_real_data
from tests.physical import SHAPE, header_lps_mm, object_lps_mm, series


def set_b_value_of_ge(instance, volume):
    instance.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", [10**9 + 500 * volume, 8, 0, 0])


def set_two_facts(instance, volume):
    instance.EchoTime, instance.TemporalPositionIdentifier = "5" if volume % 2 else "10", volume // 2 + 1


def set_kind(instance, volume):
    instance.ImageType = ["ORIGINAL", "PRIMARY", "M" if volume else "P"]


def set_direction(instance, volume):
    """One volume without, and three with diffusion along a direction, which no fact tells."""
    instance.add_new(0x00189087, "FD", 1000.0 if volume else 0.0)


NAMED = {
    "echoes": (2, set_echo, ["te4.6", "te9.2"]),
    "b-values of GE": (3, set_b_value_of_ge, ["b0", "b500", "b1000"]),
    "echoes at two times": (4, set_two_facts, ["te10-time1", "te5-time1", "te10-time2", "te5-time2"]),
    "magnitude and phase": (2, set_kind, ["p", "m"]),
    "directions": (4, set_direction, ["b0-volume1", "b1000-volume2", "b1000-volume3", "b1000-volume4"]),
    "nothing but their order": (3, lambda instance, volume: None, ["volume1", "volume2", "volume3"]),
}


@pytest.mark.parametrize("order", ["ascending", "shuffled"])
@pytest.mark.parametrize(("count", "change", "names"), NAMED.values(), ids=NAMED)
def test_volumes_are_named_by_what_differs_and_lie_where_the_headers_say(read_volumes, count, change, names, order):
    instances = copies(count, change, order)

    volumes = read_volumes(instances)

    assert list(volumes) == names
    for number, image in enumerate(volumes.values()):
        own = instances[number * SHAPE[2] : (number + 1) * SHAPE[2]]
        assert set(np.unique(sitk.GetArrayFromImage(image))) == {100 + number, 900 + number}
        assert_lies_right(image, own)


@pytest.mark.parametrize("order", ["by time", "by position"])
def test_frames_of_one_file_are_told_apart(read_volumes, order):
    instances = copies(2, lambda instance, volume: None)
    if order == "by position":
        instances = [instances[n + SHAPE[2] * time] for n in range(SHAPE[2]) for time in range(2)]

    volumes = read_volumes(frames(instances))

    assert [set(np.unique(sitk.GetArrayFromImage(image))) for image in volumes.values()] == [{100, 900}, {101, 901}]
    assert list(volumes) == ["volume1", "volume2"]


def test_time_points_of_frames_name_the_volumes(read_volumes):
    (together,) = frames(copies(3, lambda instance, volume: None))
    for n, groups in enumerate(together.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = n // SHAPE[2] + 1
        groups.FrameContentSequence = [content]

    assert list(read_volumes([together])) == ["time1", "time2", "time3"]


def test_name_of_a_volume_stays_when_another_one_arrives(read_volumes, tmp_path):
    instances = copies(3, set_echo)

    assert list(read_volumes(instances[SHAPE[2] :])) == ["te9.2", "te13.8"]
    assert [volume.name for volume in read_series(stored(tmp_path / "later", instances))] == [
        "te4.6",
        "te9.2",
        "te13.8",
    ]


def numbered_at_random(instances):
    for instance, number in zip(instances, np.random.default_rng(2).permutation(len(instances)), strict=True):
        instance.InstanceNumber = int(number) + 1
    return instances


@pytest.mark.parametrize(
    "spoil",
    [numbered_at_random, lambda instances: instances[:-1], lambda instances: [*instances, *series("oblique")[:3]]],
    ids=["order that says nothing", "a slice missing", "some slices more"],
)
def test_volumes_that_cannot_be_told_apart_are_refused(read_volumes, spoil):
    with pytest.raises(SeriesError, match="more than one slice at the same position.*nothing in the headers tells its"):
        read_volumes(spoil(copies(2, lambda instance, volume: None)))


def test_name_holds_nothing_that_a_path_could_be_made_of(read_volumes):
    def change(instance, volume):
        instance.ImageType = ["ORIGINAL", "PRIMARY", "../../etc" if volume else "A_B?\x00 C"]

    assert list(read_volumes(copies(2, change))) == ["abc", "etc"]


@pytest.mark.parametrize("plane", ["axial", "axial, slices downwards", "oblique"])
@pytest.mark.parametrize("degrees", [-25, -1.7, 3.3, 14, 30])
def test_tilted_slices_are_straightened(read_volumes, plane, degrees):
    instances = tilted(degrees, plane)

    ((name, image),) = read_volumes(instances).items()

    assert name == "upright"
    # Of the background of 100, and of the object of 900.
    weights = sitk.GetArrayFromImage(image).astype(float) - 100
    indices = np.argwhere(weights != 0)
    places_mm = np.array([image.TransformIndexToPhysicalPoint(index[::-1].tolist()) for index in indices])
    centre_mm = np.average(places_mm, axis=0, weights=weights[tuple(indices.T)])
    np.testing.assert_allclose(centre_mm, object_lps_mm(instances).mean(axis=0), atol=0.01)
    axes = np.array(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("degrees", [-25, 14])
def test_intensities_between_pixels_are_those_between_them(read_volumes, degrees):
    """A ramp along the columns stays the same ramp in millimetres."""
    instances = tilted(degrees)
    for instance in instances:
        places_mm = np.array([header_lps_mm(instance, row, 0)[1] for row in range(instance.Rows)])
        instance.PixelData = np.rint(np.outer(20 * places_mm + 3000, np.ones(instance.Columns))).astype("<i2").tobytes()

    (image,) = read_volumes(instances).values()

    array, checked = sitk.GetArrayFromImage(image), 0
    for k, j in np.ndindex(array.shape[:2]):
        if array[k, j, 3] > array.min():
            place_mm = image.TransformIndexToPhysicalPoint((3, j, k))[1]
            assert abs((array[k, j, 3] - 3000) / 20 - place_mm) < 0.1
            checked += 1
    assert checked >= SHAPE[1] * SHAPE[2] - 2 * SHAPE[2]


REAL = {
    "mr_ge_4d_dti_signed": {"b0": (128, 128, 4), "b1000": (128, 128, 4)},
    "mr_enhanced_philips_4d_fmri": {f"time{n}": (64, 64, 8) for n in range(1, 5)},
    "ct_tilt_siemens_4slices": {"upright": (512, 521, 4)},
}


@pytest.mark.parametrize("name", REAL)
def test_series_of_scanners_are_read(name, read_folder):
    volumes = read_folder(need_real_data("dicom") / name)

    assert {name: image.GetSize() for name, image in volumes.items()} == REAL[name]


def test_slices_of_a_real_gantry_keep_their_places(read_folder):
    folder = need_real_data("dicom") / "ct_tilt_siemens_4slices"
    (image,) = read_folder(folder).values()

    for path in sorted(folder.iterdir()):
        instance = pydicom.dcmread(path)
        intensities = instance.pixel_array * float(instance.RescaleSlope) + float(instance.RescaleIntercept)
        for row, column in [(100, 200), (256, 256), (400, 300)]:
            place = image.TransformPhysicalPointToContinuousIndex(header_lps_mm(instance, row, column).tolist())
            i, j, k = np.array(place)
            assert abs(i - column) < 1e-3 and abs(k - round(k)) < 1e-3
            low = int(np.floor(j))
            line = sitk.GetArrayFromImage(image)[round(k), low : low + 2, column]
            neighbours = intensities[row - 1 : row + 2, column]
            assert neighbours.min() - 1 <= np.interp(j - low, [0, 1], line) <= neighbours.max() + 1
