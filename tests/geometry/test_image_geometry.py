import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lib.geometry.image_geometry import ImageGeometry

OBLIQUE = nib.affines.from_matvec(
    Rotation.from_euler("xyz", [10, -20, 15], degrees=True).as_matrix() * [0.5, 0.8, 6.5], [5, -60, 30]
)


def test_lps_is_ras_with_the_first_two_axes_reversed():
    geometry = ImageGeometry((10, 10, 10), OBLIQUE)
    voxel = np.array([[0, 0, 0], [3, 7, 2]])

    np.testing.assert_allclose(geometry.voxel_to_lps(voxel), geometry.voxel_to_ras(voxel) * [-1, -1, 1])
    np.testing.assert_allclose(geometry.voxel_to_ras(voxel), voxel @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3])


def test_millimetres_and_back():
    geometry = ImageGeometry((10, 10, 10), OBLIQUE)
    voxel = np.random.default_rng(0).uniform(0, 10, (50, 3))

    np.testing.assert_allclose(geometry.lps_to_voxel(geometry.voxel_to_lps(voxel)), voxel, atol=1e-9)
    np.testing.assert_allclose(geometry.ras_to_voxel(geometry.voxel_to_ras(voxel)), voxel, atol=1e-9)


@pytest.mark.parametrize("code", ["RAS", "LPS", "PIR", "SLA"])
def test_ends_carry_the_names_of_the_body(code):
    names = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}
    orientation = nib.orientations.axcodes2ornt(code)
    affine = nib.orientations.inv_ornt_aff(orientation, (10, 10, 10))
    affine = np.linalg.inv(affine)

    geometry = ImageGeometry((10, 10, 10), affine)

    assert tuple(nib.aff2axcodes(affine)) == tuple(
        next(letter for letter, name in names.items() if name == high) for _, high in geometry.end_names
    )


def test_canonical_spacing_belongs_to_the_axes_of_the_body():
    # i runs to the feet (2 mm), j to the left (0.5 mm), k to the front (0.7 mm).
    affine = np.array([[0, -0.5, 0, 0], [0, 0, 0.7, 0], [-2.0, 0, 0, 0], [0, 0, 0, 1]])

    assert ImageGeometry((5, 5, 5), affine).canonical_spacing_mm == (0.5, 0.7, 2.0)
    assert ImageGeometry((5, 5, 5), affine).spacing_mm == (2.0, 0.5, 0.7)
