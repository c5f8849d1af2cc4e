"""Make series of DICOM files: frames of one file, several volumes, tilted slices, other intensities."""

import copy

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, EnhancedMRImageStorage, RLELossless

from tests.physical import SHAPE, mask_lps_mm, object_lps_mm, series, share_in


def stored(folder, instances):
    """Store instances under names in no order, and return their folder."""
    folder.mkdir()
    for instance in instances:
        instance.save_as(folder / f"{instance.SOPInstanceUID}.dcm", write_like_original=False)
    return folder


def assert_lies_right(image, instances):
    """Check that the object in an image is where the headers of its slices say."""
    read_mm, expected_mm = mask_lps_mm(image, threshold=500), object_lps_mm(instances)
    assert len(read_mm) == len(expected_mm)
    assert share_in(read_mm, expected_mm) == 1


def move(instances, millimetres):
    """Moves slice n by millimetres(n) along the columns, and leaves the rest of the header."""
    for n, instance in enumerate(instances):
        direction = np.array(instance.ImageOrientationPatient[3:], dtype=float)
        position = np.array(instance.ImagePositionPatient, dtype=float) + direction * millimetres(n)
        instance.ImagePositionPatient = [f"{number:.6f}" for number in position]
    return instances


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


def with_cosines(instances, axes, digits):
    """Turns a series: its columns, rows and slices run along the columns of axes (3, 3), in LPS."""
    for k, instance in enumerate(instances):
        instance.ImageOrientationPatient = [f"{number:.{digits}f}" for number in axes[:, :2].T.ravel()]
        instance.ImagePositionPatient = [f"{number:.{digits}f}" for number in axes[:, 2] * 2.5 * k]
    return instances


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


def rle(instance):
    instance.compress(RLELossless)


def deflated(instance):
    instance.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def copies(count, change, order="ascending"):
    """So many volumes of a series, each changed by change(instance, number of the volume)."""
    made = []
    for volume in range(count):
        for n, instance in enumerate(series("oblique", order)):
            instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = f"1.2.{volume + 1}.{n + 1}"
            instance.InstanceNumber = volume * SHAPE[2] + n + 1
            instance.PixelData = (instance.pixel_array + volume).astype("<i2").tobytes()
            change(instance, volume)
            made.append(instance)
    return made


def set_echo(instance, volume):
    instance.EchoTime = f"{4.6 * (volume + 1):g}"


def tilted(degrees, plane="axial", order="shuffled"):
    """Slices that are shifted by k times the same way along their columns, k in the order of their positions."""
    instances = series(plane, order)
    normal = np.cross(*np.array(instances[0].ImageOrientationPatient, float).reshape(2, 3))
    heights_mm = np.array([np.array(one.ImagePositionPatient, float) @ normal for one in instances])
    return move(instances, lambda n: (heights_mm[n] - heights_mm.min()) * np.tan(np.radians(degrees)))
