import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lib.geometry.image_geometry import RAS_TO_LPS, ImageGeometry

OBLIQUE = nib.affines.from_matvec(
    Rotation.from_euler("xyz", [10, -20, 15], degrees=True).as_matrix() * [0.5, 0.8, 6.5], [5, -60, 30]
)


def test_millimetres_and_back():
    geometry = ImageGeometry((10, 10, 10), OBLIQUE)
    voxel = np.random.default_rng(0).uniform(0, 10, (50, 3))

    np.testing.assert_allclose(geometry.voxel_to_ras(voxel), voxel @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3])
    np.testing.assert_allclose(geometry.voxel_to_lps(voxel), geometry.voxel_to_ras(voxel) * [-1, -1, 1])
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


# Same grid

CT = (512, 512, 1000)


def oblique_grid(shape=CT, spacing_mm=(0.5, 0.5, 0.5), origin_mm=(-1234.5, 2345.6, -3456.7), degrees=(20, -35, 50)):
    """A large grid, far from the origin of the scanner."""
    axes = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return ImageGeometry(shape, nib.affines.from_matvec(axes * spacing_mm, origin_mm))


def with_affine(grid, affine_ras):
    return ImageGeometry(grid.shape, affine_ras)


def as_nifti_keeps_it(grid):
    return with_affine(grid, grid.affine_ras.astype(np.float32).astype(np.float64))


def through_lps(grid):
    """As stored clicks and NRRD files have it: JSON numbers, axes reversed and back."""
    return with_affine(grid, RAS_TO_LPS @ np.array((RAS_TO_LPS @ grid.affine_ras).tolist()))


def with_cosines_of(digits):
    def rounded(grid):
        axes = np.round(grid.affine_ras[:3, :3] / grid.spacing_mm, digits)
        return with_affine(grid, nib.affines.from_matvec(axes * grid.spacing_mm, grid.affine_ras[:3, 3]))

    return rounded


@pytest.mark.parametrize("stored", [as_nifti_keeps_it, through_lps, with_cosines_of(6), with_cosines_of(4)])
@pytest.mark.parametrize("degrees", [(0, 0, 0), (20, -35, 50), (179, 1, -91), (45, 35.26, 0)])
def test_grid_stays_the_same_through_the_rounding_of_headers(stored, degrees):
    grid = oblique_grid(degrees=degrees)

    assert grid.is_close(stored(grid))
    assert stored(grid).is_close(grid)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("apart_voxels", "same"), [(0.05, True), (0.2, False), (0.5, False)])
def test_spacing_that_adds_up_along_an_axis_is_another_grid(axis, apart_voxels, same):
    """Each entry of the affine differs by less than a thousandth of a millimetre."""
    grid = oblique_grid()
    spacing_mm = np.array(grid.spacing_mm)
    spacing_mm[axis] *= 1 + apart_voxels / (CT[axis] - 1)
    other = oblique_grid(spacing_mm=spacing_mm)

    assert np.allclose(grid.affine_ras, other.affine_ras, rtol=0, atol=1e-3)
    assert grid.voxels_apart(other) == pytest.approx(apart_voxels, rel=1e-6)
    assert grid.is_close(other) is same


@pytest.mark.parametrize("spacing_mm", [(0.01, 0.01, 0.01), (0.5, 0.8, 6.5), (10, 10, 10)])
@pytest.mark.parametrize(("shift_voxels", "same"), [(0.09, True), (0.11, False)])
def test_shift_counts_in_voxels_of_the_smallest_spacing(spacing_mm, shift_voxels, same):
    grid = oblique_grid((20, 20, 20), spacing_mm, (0, 0, 0))
    shifted = oblique_grid((20, 20, 20), spacing_mm, (0, 0, shift_voxels * min(spacing_mm)))

    assert grid.is_close(shifted) is same


def test_turned_grid_is_another_by_its_far_corner():
    """The first voxel stays; a twentieth of a degree moves the last by more than half a voxel."""
    assert not oblique_grid(degrees=(0, 0, 0)).is_close(oblique_grid(degrees=(0, 0, 0.05)))


def test_grid_of_another_shape_or_without_numbers_is_another():
    grid = oblique_grid()

    assert not grid.is_close(oblique_grid((512, 512, 999)))
    assert grid.voxels_apart(oblique_grid((512, 512, 999))) == float("inf")
    for number in (0.0, np.nan):
        broken = with_affine(grid, grid.affine_ras * number)
        assert not grid.is_close(broken)
        assert not broken.is_close(grid)
