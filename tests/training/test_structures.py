"""Ends of structures from clicks and masks, for any orientation of the scan."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation
from lib.data.annotated_scan import AnnotatedScan
from lib.geometry.image_geometry import ImageGeometry
from lib.training.structures import MAX_MASKS, structure_extremes

SHAPE, AFFINE = (20, 18, 12), np.diag([0.5, 1.0, 2.5, 1.0])
# One voxel at each end, except one end with two voxels.
VOXELS = np.array([[3, 8, 5], [14, 6, 4], [9, 2, 6], [7, 13, 7], [8, 9, 1], [10, 8, 10], [3, 9, 5]])
ENDS = [[[3, 8.5, 5], [14, 6, 4]], [[9, 2, 6], [7, 13, 7]], [[8, 9, 1], [10, 8, 10]]]


def drawn(value=1):
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(VOXELS.T)] = value
    return nib.Nifti1Image(mask, AFFINE)


def stored(image, orientation):
    """Reorient an image."""
    target = nib.orientations.axcodes2ornt(orientation)
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), target))


def scan(folder, image, kind, label="cyst"):
    path = folder / "mask.nii"
    nib.save(image, path)
    bare = AnnotatedScan("scan", path, "sum")
    if kind == "masked":
        return replace(bare, mask_path=path, mask_labels=("lesion", "cyst"))
    values = np.asarray(image.dataobj)
    points = ExtremePoints.from_clicks(label, np.argwhere(values))
    geometry = ImageGeometry(values.shape, image.affine)
    return replace(bare, annotations=(Annotation.now("scan", points, geometry, "reader"),))


@pytest.mark.parametrize("kind", ["clicked", "masked"])
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SLA", "IPL"])
def test_ends_lie_along_right_anterior_superior(tmp_path, orientation, kind):
    (found,) = structure_extremes([scan(tmp_path, stored(drawn(2), orientation), kind)], ("lesion", "cyst"))

    # One of the two voxels at an end is clicked.
    np.testing.assert_allclose(found.ends_voxel, ENDS, atol=0.5 if kind == "clicked" else 1e-9)
    assert (found.label, *found.scan_shape, *found.spacing_mm) == pytest.approx((2, *SHAPE, 0.5, 1.0, 2.5))
    np.testing.assert_allclose(found.extent_mm, [11 * 0.5, 11 * 1.0, 9 * 2.5])


def test_every_label_of_a_mask_has_ends(tmp_path):
    image = drawn(1)
    values = np.asarray(image.dataobj).copy()
    values[0, 0, 0] = 3
    found = structure_extremes([scan(tmp_path, nib.Nifti1Image(values, AFFINE), "masked")], ("a", "b", "c"))

    assert [ends.label for ends in found] == [1, 3]
    np.testing.assert_array_equal(found[1].ends_voxel, np.zeros((3, 2, 3)))


def test_clicks_are_used_instead_of_a_mask(tmp_path):
    clicked = scan(tmp_path, drawn(2), "clicked", label="lesion")
    both = replace(clicked, mask_path=clicked.image_path, mask_labels=("lesion", "cyst"))

    assert [ends.label for ends in structure_extremes([both], ("lesion", "cyst"))] == [1]


def test_unreadable_masks_and_unknown_labels_are_ignored(tmp_path):
    broken = scan(tmp_path, drawn(), "masked")
    clicked = scan(tmp_path, drawn(), "clicked")
    broken.mask_path.write_bytes(b"half a mask")

    assert structure_extremes([broken, clicked], ("lesion",)) == []


def test_number_of_masks_is_limited(tmp_path):
    masked = scan(tmp_path, drawn(), "masked")

    assert len(structure_extremes([masked] * (MAX_MASKS + 5), ("lesion",))) == MAX_MASKS
