"""Where voxels lie in the patient, told by headers and by SimpleITK: independent of the code under test."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from lib.demo.dicom import dicom_series

SHAPE = (24, 20, 12)
SPACING_MM = (0.7, 0.9, 2.5)


def l_shape(shape=SHAPE):
    """(X, Y, Z) int16: an L with a foot, unlike itself in every mirror image and turn."""
    array = np.full(shape, 100, np.int16)
    array[4:9, 5:15, 3:8] = 900
    array[9:17, 5:8, 3:6] = 900
    array[4:6, 13:17, 6:10] = 900
    return array


def affine_ras(axes, spacing_mm=SPACING_MM, origin_mm=(-31.0, 47.5, 12.25)):
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(axes, dtype=float).T * spacing_mm
    affine[:3, 3] = origin_mm
    return affine


L, R, A, P, S, I = (  # noqa: E741, N806 - the letters of anatomical directions
    np.array(axis, dtype=float) for axis in ([-1, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1])
)
OBLIQUE = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()

# Directions of increasing column, row and slice index.
PLANES = {
    "axial": affine_ras([L, P, S]),
    "axial, slices downwards": affine_ras([L, P, I]),
    "axial, thin": affine_ras([L, P, S], spacing_mm=(0.5, 0.5, 0.6)),
    "sagittal": affine_ras([P, I, L]),
    "sagittal, slices to the right": affine_ras([P, I, R]),
    "coronal": affine_ras([L, I, A]),
    "coronal, slices backwards": affine_ras([L, I, P]),
    "oblique": affine_ras([OBLIQUE @ L, OBLIQUE @ P, OBLIQUE @ S]),
    "oblique, slices downwards": affine_ras([OBLIQUE @ L, OBLIQUE @ P, -(OBLIQUE @ S)]),
}
ORDERS = {
    "ascending": range(SHAPE[2]),
    "descending": range(SHAPE[2])[::-1],
    "shuffled": [int(k) for k in np.random.default_rng(3).permutation(SHAPE[2])],
}


def series(plane="axial", order="ascending", **settings):
    return dicom_series(l_shape(), PLANES[plane], f"{plane}^{order}", instance_order=ORDERS[order], **settings)


def header_lps_mm(instance, row, column):
    """DICOM PS3.3, equation C.7.6.2.1-1."""
    orientation = np.array(instance.ImageOrientationPatient, dtype=float)
    row_mm, column_mm = (float(number) for number in instance.PixelSpacing)
    along_row, along_column = orientation[:3] * column_mm, orientation[3:] * row_mm
    return np.array(instance.ImagePositionPatient, dtype=float) + along_row * column + along_column * row


def object_lps_mm(instances):
    """(N, 3) of the L, by the headers of its slices."""
    return np.array(
        [
            header_lps_mm(instance, row, column)
            for instance in instances
            for row, column in np.argwhere(instance.pixel_array > 500)
        ]
    )


def mask_lps_mm(image, threshold=0):
    """(N, 3) of what lies above the threshold in a SimpleITK image or file."""
    image = image if isinstance(image, sitk.Image) else sitk.ReadImage(str(image))
    indices = np.argwhere(sitk.GetArrayFromImage(image) > threshold)[:, ::-1]
    return np.array([image.TransformIndexToPhysicalPoint(index.tolist()) for index in indices])


def share_in(points_mm, others_mm):
    """Share of points (N, 3) that are also among the others, within a twentieth of a millimetre."""
    distance_mm, _ = cKDTree(others_mm).query(points_mm)
    return float(np.mean(distance_mm < 0.05))


def assert_same_place(mask_mm, object_mm):
    """Check that the mask of six clicks covers the object and little else."""
    assert share_in(object_mm, mask_mm) > 0.97
    assert share_in(mask_mm, object_mm) > 0.75


def extreme_voxels(mask):
    """Six voxels (i, j, k), low and high along each axis."""
    voxels = np.argwhere(mask)
    return [voxels[pick(voxels[:, axis])].tolist() for axis in range(3) for pick in (np.argmin, np.argmax)]


def read_mask(answer, folder):
    """Return the SimpleITK image in an answer."""
    assert answer.status_code == 200, answer.text
    path = folder / "mask.nrrd"
    path.write_bytes(answer.content)
    return sitk.ReadImage(str(path))
