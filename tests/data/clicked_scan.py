"""A clicked scan on disk, and files that cannot be read."""

import hashlib
from dataclasses import replace

import nibabel as nib
import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation
from lib.data.annotated_scan import AnnotatedScan
from lib.geometry.image_geometry import ImageGeometry

# Permuted axes, anisotropic; the network's grid is (right, anterior, superior).
AFFINE = np.array([[0, 0, 1.5, 10], [-0.5, 0, 0, 20], [0, 0.5, 0, -5], [0, 0, 0, 1.0]])
SHAPE = (80, 70, 24)
CLICKS = np.array([[20, 40, 12], [50, 41, 12], [35, 20, 12], [36, 60, 12], [35, 40, 6], [35, 40, 18]])
OWN_MM = (1.5, 0.5, 0.5)
MARGIN = 2
AUGMENTATIONS = ["none", "flip", "full"]


def save(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def annotated(path, image_id="scan", **known):
    points = ExtremePoints.from_clicks("lesion", CLICKS)
    annotation = Annotation.now(image_id, points, ImageGeometry(SHAPE, AFFINE), "reader")
    checksum = hashlib.sha256(str(path).encode()).hexdigest()
    return replace(AnnotatedScan(image_id, path, checksum, (annotation,)), **known)


def in_box():
    """Make a mask of the tight box of the clicks, on the grid of the file."""
    array = np.zeros(SHAPE, np.uint8)
    array[20:51, 20:61, 6:19] = 1
    return array


def _without_measurements(path):
    save(path, np.full(SHAPE, -3.4e38, np.float32))


def _not_finite(path):
    save(path, np.full(SHAPE, np.nan, np.float32))


def _in_wrong_units(path):
    save(path, np.ones(SHAPE, np.float32), np.diag([1000.0, 1000, 1000, 1]) @ AFFINE)


UNUSABLE = {
    "no image": lambda path: path.write_bytes(b"no image"),
    "no measurements": _without_measurements,
    "not finite": _not_finite,
    "wrong units": _in_wrong_units,
    "removed": lambda path: path.unlink(missing_ok=True),
}
"""Functions that replace an image by one that cannot be used."""
