"""Studies in several geometries with a known object, and where its extreme points lie by SimpleITK."""

import json
from types import MappingProxyType

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from tests.physical import OBLIQUE, SPACING_MM, l_shape

SHAPE = (24, 20, 12)
# Two for each axis, in no order.
CLICKS = [[16, 6, 4], [4, 6, 4], [5, 16, 8], [5, 5, 6], [5, 14, 9], [10, 6, 3]]


def _affine_ras(axes):
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(SPACING_MM)
    affine[:3, 3] = (-31.0, 47.5, 12.25)
    return affine


# Directions of i, j, k in RAS, as columns.
GEOMETRIES = MappingProxyType(
    {
        "straight": _affine_ras(np.eye(3)),
        "flipped": _affine_ras(np.diag([-1.0, -1.0, 1.0])),
        "sagittal": _affine_ras(np.eye(3)[:, [1, 2, 0]] * [-1, -1, 1]),
        "oblique": _affine_ras(OBLIQUE),
        "oblique_flipped": _affine_ras(OBLIQUE * [1, -1, -1]),
    }
)


def write_volume(path, array, affine_ras):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".nrrd"):
        write_volume(path.with_suffix(".nii.gz"), array, affine_ras)
        sitk.WriteImage(sitk.ReadImage(str(path.with_suffix(".nii.gz"))), str(path))
        path.with_suffix(".nii.gz").unlink()
        return path
    image = nib.Nifti1Image(array, affine_ras)
    image.set_sform(affine_ras, code=1)
    nib.save(image, path)
    return path


def write_studies(folder, names=GEOMETRIES):
    for name in names:
        write_volume(folder / f"{name}.nii.gz", l_shape(), GEOMETRIES[name])
    return folder


def clicks_lps_mm(path, clicks=None):
    """Return the positions (N, 3) of voxels of a file by SimpleITK."""
    image = sitk.ReadImage(str(path))
    return np.array([image.TransformIndexToPhysicalPoint(list(click)) for click in clicks or CLICKS])


def stored(studies, image, label="lesion"):
    """Read the file of an annotation."""
    return json.loads((studies / "labels" / "extreme_points" / f"{image}.{label}.json").read_text())


def stored_clicks(studies, image, label="lesion"):
    """Return voxel indices (N, 3) int and LPS positions (N, 3) in the file of an annotation."""
    clicks = stored(studies, image, label)["current"]["foreground"]
    return [click["voxel"] for click in clicks], np.array([click["lps_mm"] for click in clicks])


def all_files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
