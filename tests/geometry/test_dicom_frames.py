"""DICOM series that are refused by their headers."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataelem import RawDataElement

from lib.geometry.dicom_frames import SeriesError
from lib.geometry.dicom_series import read_series
from lib.geometry.volume_size import MAX_VOLUME_VARIABLE
from tests.geometry.dicom_files import deflated, frames, move, rescaled, rle, stored, with_cosines
from tests.physical import series


def without(instances, *slices):
    return [instance for n, instance in enumerate(instances) if n not in slices]


def turned(instances):
    instances[3].ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    return instances


def changed(instances, which=slice(3, 4), **attributes):
    for instance in instances[which]:
        for name, value in attributes.items():
            setattr(instance, name, value)
    return instances


def huge(instances, **attributes):
    return changed(instances, slice(None), **attributes)


def unplaced(instances):
    del instances[3].ImagePositionPatient
    return instances


REFUSED = {
    "tilt that no gantry has": (
        lambda s: move(s, lambda n: n * 2.5 * np.tan(np.radians(50))),
        "shifted by up to 32.8 mm in their own plane, and not as by a gantry that is tilted by up to 45 degrees",
    ),
    "shifted to and fro": (lambda s: move(s, lambda n: n % 2), "shifted by up to 1.0 mm in their own plane, and not"),
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


def test_file_that_is_no_dicom_and_no_file_are_refused(tmp_path):
    with pytest.raises(SeriesError, match="is empty"):
        read_series(tmp_path)

    (tmp_path / "broken.dcm").write_bytes(b"this is no image")
    with pytest.raises(SeriesError, match="a file that is not a DICOM image"):
        read_series(tmp_path)


@pytest.mark.parametrize("degrees", [0.1, 1, 5])
def test_rows_and_columns_that_are_not_at_right_angles_are_refused(read, degrees):
    sheared = np.eye(3)
    sheared[:2, 1] = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))

    with pytest.raises(SeriesError, match="does not say where its slices lie"):
        read(with_cosines(series(), sheared, 6))


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
    folder = stored(tmp_path / "series", store(rescaled(series()[:3], slopes, ["0"] * 3)))
    damaged = sorted(folder.iterdir())[0]
    whole = damaged.read_bytes()
    refused = 0

    for n, (place, length) in enumerate(elements(damaged)):
        for garbage in (GARBLED[n % 8], GARBLED[(n + 3) % 8], GARBLED[(n + 6) % 8]):
            value = (garbage * length)[:length]
            damaged.write_bytes(whole[:place] + value + whole[place + length :])
            try:
                for volume in read_series(folder):
                    volume.write(tmp_path / "volume.nii")
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
