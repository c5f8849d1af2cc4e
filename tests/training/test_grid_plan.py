"""The grid of an untrained network is coarse enough for patches with context; patches fit the scans."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.annotations.store import Annotation
from lib.data.annotated_scan import AnnotatedScan
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError
from lib.training.grid_plan import SMALL_CHANGE, plan_patch, plan_spacing
from lib.training.hyperparameters import Hyperparameters
from lib.training.structures import structure_extremes
from tests.training.phantoms import clicks

# j runs to the left, i to the front: 0.5 mm to the right, 0.6 mm to the front, 2.5 mm upwards.
AFFINE = np.array([[0, -0.5, 0, 40], [0.6, 0, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
SHAPE = (30, 26, 12)
OWN_MM = (0.5, 0.6, 2.5)


def box(extents):
    """Make a mask of a box with these extents along i, j, k."""
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(1, 1 + extent) for extent in extents)] = True
    return mask


def scan(folder, name, factor=1.0, clicked=(), masked=None):
    """Write a scan with a multiple of the spacing, and clicks around boxes or a mask of a box."""
    affine = AFFINE @ np.diag([factor, factor, factor, 1.0])
    path = folder / f"{name}.nii"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), affine), path)
    geometry = ImageGeometry(SHAPE, affine)
    annotations = tuple(Annotation.now(name, clicks("lesion", box(size)), geometry, "reader") for size in clicked)
    mask_path = None
    if masked is not None:
        mask_path = folder / f"{name}.mask.nii"
        nib.save(nib.Nifti1Image(box(masked).astype(np.uint8), affine), mask_path)
    return AnnotatedScan(name, path, name, annotations, (), mask_path, ("lesion",) if masked else ())


def plan(scans, **changes):
    h = Hyperparameters(**{"roi_size": (16, 16, 16), **changes})
    return plan_spacing(scans, structure_extremes(scans, ("lesion",)), h)


@pytest.mark.parametrize(
    ("factors", "min_spacing_mm", "expected"), [((1, 2, 5), 0, (1.0, 1.2, 5.0)), ((1,), 1.0, (1.0, 1.0, 2.5))]
)
def test_spacing_is_the_median_along_right_anterior_superior_and_not_finer_than_the_minimum(
    tmp_path, factors, min_spacing_mm, expected
):
    scans = [scan(tmp_path, str(factor), factor) for factor in factors]

    assert plan(scans, min_spacing_mm=min_spacing_mm) == pytest.approx(expected, abs=1e-3)


# From its first to its last voxel 11.4 mm to the front, 4.5 mm to the right, 12.5 mm upwards.
LARGE = (20, 10, 6)


@pytest.mark.parametrize("kind", [{"clicked": [LARGE]}, {"masked": LARGE}])
def test_patch_extends_over_a_multiple_of_the_structure(tmp_path, kind):
    spacing_mm = plan([scan(tmp_path, "one", **kind)], patch_context=2.0)

    # Along the other axes, the spacing of the scan is sufficient or nearly so.
    assert spacing_mm == pytest.approx((0.5, 2 * 19 * 0.6 / 16, 2.5), abs=1e-3)


def test_larger_patches_need_no_coarser_grid(tmp_path):
    large = scan(tmp_path, "one", clicked=[LARGE])

    assert plan([large], patch_context=2.0, roi_size=(64, 64, 16)) == pytest.approx(OWN_MM, abs=1e-3)
    assert plan([large], patch_context=0.0) == pytest.approx(OWN_MM, abs=1e-3)


def test_grid_is_not_made_a_little_coarser(tmp_path):
    large = scan(tmp_path, "one", clicked=[LARGE])
    context = 16 * 0.6 / (19 * 0.6)

    assert plan([large], patch_context=0.98 * SMALL_CHANGE * context)[1] == pytest.approx(0.6, abs=1e-3)
    assert plan([large], patch_context=1.02 * SMALL_CHANGE * context)[1] > SMALL_CHANGE * 0.6


def test_a_few_large_structures_do_not_change_the_grid(tmp_path):
    small, large = (6, 6, 3), (28, 24, 10)
    scans = [scan(tmp_path, f"{n}", clicked=[small]) for n in range(9)] + [scan(tmp_path, "large", clicked=[large])]

    assert plan(scans, patch_context=2.0) == plan(scans[:9], patch_context=2.0)
    assert plan(scans[-1:], patch_context=2.0)[0] > plan(scans, patch_context=2.0)[0]


def test_every_structure_of_a_scan_is_used(tmp_path):
    both = scan(tmp_path, "one", clicked=[(6, 6, 3), LARGE, LARGE, LARGE])

    assert plan([both], patch_context=2.0) == plan([scan(tmp_path, "two", clicked=[LARGE])], patch_context=2.0)


def test_scans_without_a_structure_or_with_an_unreadable_mask_have_no_extents(tmp_path):
    nothing = scan(tmp_path, "nothing")
    broken = scan(tmp_path, "broken", masked=LARGE)
    broken.mask_path.write_bytes(b"half a mask")

    assert plan([nothing, broken], patch_context=2.0) == pytest.approx(OWN_MM, abs=1e-3)


def test_unreadable_scan_is_refused(tmp_path):
    broken = scan(tmp_path, "broken")
    broken.image_path.write_bytes(b"no image")

    with pytest.raises(VolumeError, match=r"broken\.nii cannot be read"):
        plan([broken])


# The size of patches

UNIT_MM = (1.0, 1.0, 1.0)


def patch_of(shape, roi_size, context=1.25):
    """Plan a patch for scans of this shape, with voxels of 1 mm."""
    h = Hyperparameters(roi_size=roi_size, patch_context=context)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lib.training.grid_plan.read_geometry", lambda path: ImageGeometry(shape, np.eye(4)))
        return plan_patch([AnnotatedScan("one", None, "one")], UNIT_MM, h)


SIZES = st.tuples(*[st.integers(8, 200)] * 3)


@given(SIZES, SIZES)
def test_patch_fits_the_scan_and_has_about_the_requested_number_of_voxels(shape, roi_size):
    size = np.array(patch_of(shape, roi_size))

    assert np.all(size <= shape)
    assert np.all(size >= np.minimum(shape, roi_size))
    assert np.prod(size - 1) <= np.prod(roi_size), "except for rounding up"
    assert np.prod(size) >= 0.99 * min(np.prod(roi_size), np.prod(shape))


def test_patch_is_the_requested_one_for_larger_scans_and_without_context():
    assert patch_of((200, 200, 200), (64, 48, 32)) == (64, 48, 32)
    assert patch_of((20, 20, 20), (64, 48, 32), context=0) == (64, 48, 32)


def test_a_few_long_scans_do_not_make_patches_longer(tmp_path):
    scans = [scan(tmp_path, str(n)) for n in range(9)] + [scan(tmp_path, "long", factor=10.0)]

    assert plan_patch(scans, OWN_MM, Hyperparameters(patch_context=1.25, roi_size=(64, 64, 64))) == (26, 30, 12)
