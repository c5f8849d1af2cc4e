"""The grid of an untrained network is coarse enough that a patch shows what is around; a patch fits the scans."""

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
    """Of so many voxels along i, j, k."""
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(1, 1 + extent) for extent in extents)] = True
    return mask


def scan(folder, name, factor=1.0, clicked=(), masked=None):
    """A scan with voxels of so many times the spacing; clicks around boxes, or a mask of a box."""
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


def test_it_is_the_median_spacing_along_the_axes_of_the_body(tmp_path):
    scans = [scan(tmp_path, str(factor), factor) for factor in (1, 2, 5)]

    assert plan(scans) == pytest.approx((1.0, 1.2, 5.0), abs=1e-3)


def test_it_is_not_finer_than_asked(tmp_path):
    assert plan([scan(tmp_path, "one")], min_spacing_mm=1.0) == pytest.approx((1.0, 1.0, 2.5), abs=1e-3)


# From its first to its last voxel 11.4 mm to the front, 4.5 mm to the right, 12.5 mm upwards.
LARGE = (20, 10, 6)


@pytest.mark.parametrize("kind", [{"clicked": [LARGE]}, {"masked": LARGE}])
def test_patch_reaches_over_so_many_times_the_structure(tmp_path, kind):
    spacing_mm = plan([scan(tmp_path, "one", **kind)], patch_context=2.0)

    # To the right the scan's own voxels nearly do, and upwards they do.
    assert spacing_mm == pytest.approx((0.5, 2 * 19 * 0.6 / 16, 2.5), abs=1e-3)


def test_larger_patches_need_no_coarser_grid(tmp_path):
    large = scan(tmp_path, "one", clicked=[LARGE])

    assert plan([large], patch_context=2.0, roi_size=(64, 64, 16)) == pytest.approx(OWN_MM, abs=1e-3)
    assert plan([large], patch_context=0.0) == pytest.approx(OWN_MM, abs=1e-3)


def test_grid_is_not_made_coarser_for_little(tmp_path):
    large = scan(tmp_path, "one", clicked=[LARGE])
    context = 16 * 0.6 / (19 * 0.6)

    assert plan([large], patch_context=0.98 * SMALL_CHANGE * context)[1] == pytest.approx(0.6, abs=1e-3)
    assert plan([large], patch_context=1.02 * SMALL_CHANGE * context)[1] > SMALL_CHANGE * 0.6


def test_a_few_large_structures_do_not_count(tmp_path):
    small, large = (6, 6, 3), (28, 24, 10)
    scans = [scan(tmp_path, f"{n}", clicked=[small]) for n in range(9)] + [scan(tmp_path, "large", clicked=[large])]

    assert plan(scans, patch_context=2.0) == plan(scans[:9], patch_context=2.0)
    assert plan(scans[-1:], patch_context=2.0)[0] > plan(scans, patch_context=2.0)[0]


def test_every_structure_of_a_scan_counts(tmp_path):
    both = scan(tmp_path, "one", clicked=[(6, 6, 3), LARGE, LARGE, LARGE])

    assert plan([both], patch_context=2.0) == plan([scan(tmp_path, "two", clicked=[LARGE])], patch_context=2.0)


def test_scan_without_a_structure_or_with_an_unreadable_mask_says_nothing_of_extents(tmp_path):
    nothing = scan(tmp_path, "nothing")
    broken = scan(tmp_path, "broken", masked=LARGE)
    broken.mask_path.write_bytes(b"half a mask")

    assert plan([nothing, broken], patch_context=2.0) == pytest.approx(OWN_MM, abs=1e-3)


def test_unreadable_scan_is_told_in_a_sentence(tmp_path):
    broken = scan(tmp_path, "broken")
    broken.image_path.write_bytes(b"no image")

    with pytest.raises(VolumeError, match=r"broken\.nii cannot be read"):
        plan([broken])


# The size of patches

UNIT_MM = (1.0, 1.0, 1.0)


def patch_of(shape, roi_size, context=1.25):
    """For scans of this shape, on voxels of 1 mm."""
    h = Hyperparameters(roi_size=roi_size, patch_context=context)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lib.training.grid_plan.read_geometry", lambda path: ImageGeometry(shape, np.eye(4)))
        return plan_patch([AnnotatedScan("one", None, "one")], UNIT_MM, h)


SIZES = st.tuples(*[st.integers(8, 200)] * 3)


@given(SIZES, SIZES)
def test_patch_reaches_beyond_no_scan_and_costs_no_more_than_asked(shape, roi_size):
    size = np.array(patch_of(shape, roi_size))

    assert np.all(size <= shape)
    # But for what rounding up adds.
    assert np.prod(size - 1) <= np.prod(roi_size)
    assert np.all(size >= np.minimum(shape, roi_size))


@given(SIZES, SIZES)
def test_what_a_short_axis_leaves_goes_to_the_others(shape, roi_size):
    size = np.array(patch_of(shape, roi_size))

    assert np.prod(size) >= 0.99 * min(np.prod(roi_size), np.prod(shape))


def test_patch_is_the_one_that_is_asked_for_where_scans_are_larger_or_no_context_is_asked_for():
    assert patch_of((200, 200, 200), (64, 48, 32)) == (64, 48, 32)
    assert patch_of((20, 20, 20), (64, 48, 32), context=0) == (64, 48, 32)


def test_a_few_long_scans_do_not_make_patches_longer(tmp_path):
    scans = [scan(tmp_path, str(n)) for n in range(9)] + [scan(tmp_path, "long", factor=10.0)]

    assert plan_patch(scans, OWN_MM, Hyperparameters(patch_context=1.25, roi_size=(64, 64, 64))) == (26, 30, 12)
