"""Random maps of patches, and random intensities."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lib.data.augmentation import DEGREES, SCALE, RandomContrast, random_intensities, random_matrix

SPACINGS_MM = [(1.0, 1.0, 1.0), (0.5, 1.0, 1.5), (0.3, 0.85, 0.85), (1.0, 0.34, 1.0)]
THICK_SLICES_MM = [((4.0, 1.0, 1.0), 0), ((0.9, 2.8, 0.9), 1), ((0.5, 0.5, 6.5), 2), ((0.5, 2.0, 2.0), 0)]
DRAWS = 400
NOT_MIRRORED = (False, False, False)


def matrices(augmentation, spacing_mm=(1.0, 1.0, 1.0), **options):
    torch.manual_seed(0)
    return [random_matrix(augmentation, spacing_mm, **options) for _ in range(DRAWS)]


def in_mm(matrix, spacing_mm):
    """Convert a map to millimetres."""
    return np.diag(spacing_mm) @ matrix @ np.diag(1 / np.array(spacing_mm))


def scale_and_rotation(matrix, spacing_mm):
    """Return factor and angle in degrees of a map that is a scaling and rotation in millimetres."""
    linear = in_mm(matrix, spacing_mm)
    scale = abs(np.linalg.det(linear)) ** (1 / 3)
    np.testing.assert_allclose(linear @ linear.T, scale**2 * np.eye(3), atol=1e-9)
    return scale, np.degrees(Rotation.from_matrix(linear / scale).magnitude())


# Maps


def test_without_augmentation_the_map_is_the_identity():
    assert all(np.array_equal(matrix, np.eye(3)) for matrix in matrices("none"))


def test_flips_mirror_each_axis_half_of_the_time_and_do_nothing_else():
    flips = matrices("flip", (0.5, 1.0, 4.0))

    assert all(np.array_equal(np.abs(matrix), np.eye(3)) for matrix in flips)
    assert len({tuple(np.diag(matrix)) for matrix in flips}) == 8
    assert np.mean([np.diag(matrix) < 0 for matrix in flips], axis=0) == pytest.approx([0.5] * 3, abs=0.1)


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_full_rotates_and_scales_in_millimetres(spacing_mm):
    scales, degrees = zip(
        *[scale_and_rotation(matrix, spacing_mm) for matrix in matrices("full", spacing_mm, mirrored=NOT_MIRRORED)],
        strict=True,
    )

    assert DEGREES < max(degrees) <= 3 * DEGREES
    assert 0.8 * SCALE < -math.log(min(scales)) <= SCALE + 1e-9
    assert 0.8 * SCALE < math.log(max(scales)) <= SCALE + 1e-9


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_every_axis_is_rotated_towards_every_other(spacing_mm):
    largest = np.max(np.abs(matrices("full", spacing_mm)), axis=0)

    assert (largest > 0.05).all()


@pytest.mark.parametrize(("spacing_mm", "axis"), THICK_SLICES_MM)
def test_axes_with_very_different_spacings_are_not_rotated_towards_each_other(spacing_mm, axis):
    others = [other for other in range(3) if other != axis]
    turned = matrices("full", spacing_mm)

    assert all((matrix[axis, others] == 0).all() and (matrix[others, axis] == 0).all() for matrix in turned)
    assert max(abs(matrix[others[0], others[1]]) for matrix in turned) > 0.1


@pytest.mark.parametrize("augmentation", ["flip", "full"])
@pytest.mark.parametrize("mirrored", [(True, False, True), (False, True, False), (True, True, True), NOT_MIRRORED])
def test_allowed_axes_are_mirrored_half_of_the_time(augmentation, mirrored):
    # Rotations are too small to reverse an axis.
    backwards = np.mean([np.diag(matrix) < 0 for matrix in matrices(augmentation, mirrored=mirrored)], axis=0)

    assert backwards == pytest.approx(np.array(mirrored) / 2, abs=0.1)


@pytest.mark.parametrize("augmentation", ["flip", "full"])
def test_maps_depend_on_the_seed(augmentation):
    np.testing.assert_array_equal(matrices(augmentation), matrices(augmentation))


# Intensities


def image(seed=0):
    return torch.randn(16, 14, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("augmentation", ["none", "flip"])
def test_only_full_changes_intensities(augmentation):
    torch.manual_seed(0)

    assert all(torch.equal(random_intensities(image(), augmentation), image()) for _ in range(20))


def test_full_changes_intensities_moderately():
    torch.manual_seed(0)
    smooth = torch.nn.functional.avg_pool3d(image()[None], 5, 1, 2)[0] * 8

    changed = [random_intensities(smooth.clone(), "full") for _ in range(60)]

    assert all(other.shape == smooth.shape and other.dtype == torch.float32 for other in changed)
    assert all(torch.isfinite(other).all() for other in changed)
    assert 0.25 < np.mean([not torch.equal(other, smooth) for other in changed]) < 0.75
    assert all(np.corrcoef(other.flatten(), smooth.flatten())[0, 1] > 0.8 for other in changed)


def test_augmentation_does_not_change_its_input():
    torch.manual_seed(0)
    original = image()

    for _ in range(30):
        random_intensities(original, "full")

    assert torch.equal(original, image())


def test_patch_without_contrast_stays_finite():
    torch.manual_seed(0)

    assert all(torch.isfinite(random_intensities(torch.zeros(8, 8, 8), "full")).all() for _ in range(60))


def test_intensities_depend_on_the_seed():
    there, back = ([torch.manual_seed(3), random_intensities(image(), "full")][1] for _ in range(2))

    assert torch.equal(there, back)


def test_contrast_scales_about_the_mean_and_shifts():
    torch.manual_seed(0)
    values = image() + 5
    factors, shifts = [], []
    for _ in range(200):
        changed = RandomContrast(scale=0.25, shift=0.2)(values[None])[0].double()
        factors.append((changed.std() / values.double().std()).item())
        shifts.append((changed.mean() - values.double().mean()).item())
        torch.testing.assert_close(
            (changed - changed.mean()) / factors[-1], values.double() - values.double().mean(), rtol=0, atol=1e-4
        )

    assert 0.75 - 1e-6 <= min(factors) < 0.8 and 1.2 < max(factors) <= 1.25 + 1e-6
    assert -0.2 - 1e-5 <= min(shifts) < -0.15 and 0.15 < max(shifts) <= 0.2 + 1e-5
