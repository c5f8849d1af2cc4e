"""Augmented patches and their clicks."""

import numpy as np
import pytest
import torch
import torchio as tio
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lib.data.augmentation import augment
from lib.data.clicks import CLICKS, IMAGE, MASK, POSSIBLE, WorldClicks

SHAPE = (48, 40, 28)
SPACING_MM = (1.0, 1.2, 1.6)
CLICKS_VOXEL = np.array([[12, 20, 14], [34, 19, 13], [23, 9, 15], [24, 30, 12], [22, 20, 8], [25, 21, 20]])


def patch(affine=None):
    """Smooth blobs on the clicks, and an object inside their box."""
    affine = np.diag([*SPACING_MM, 1.0]) if affine is None else affine
    spots = np.zeros(SHAPE, dtype=np.float32)
    spots[tuple(CLICKS_VOXEL.T)] = 1
    image = ndimage.gaussian_filter(spots, 1.2)
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[12:35, 9:31, 8:21] = 1
    clicks_mm = CLICKS_VOXEL @ affine[:3, :3].T + affine[:3, 3]
    return tio.Subject(
        **{
            IMAGE: tio.ScalarImage(tensor=torch.from_numpy(image / image.max())[None], affine=affine),
            MASK: tio.LabelMap(tensor=torch.from_numpy(mask)[None], affine=affine),
            POSSIBLE: tio.LabelMap(tensor=torch.from_numpy(mask)[None], affine=affine),
            CLICKS: [WorldClicks("lesion", clicks_mm, np.empty((0, 3)))],
        }
    )


def centre_of_blob_near(image, voxel):
    """Centre of mass of what is bright within three voxels."""
    low = np.maximum(voxel - 3, 0)
    window = image[tuple(slice(a, b) for a, b in zip(low, voxel + 4, strict=True))]
    return low + np.array(ndimage.center_of_mass(np.where(window > 0.3 * window.max(), window, 0)))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("oblique", [False, True])
def test_clicks_stay_on_what_was_clicked(seed, oblique):
    affine = np.diag([*SPACING_MM, 1.0])
    if oblique:
        affine[:3, :3] = Rotation.from_euler("xyz", [20, -35, 10], degrees=True).as_matrix() * SPACING_MM
        affine[:3, 3] = [-40, 17, 90]
    torch.manual_seed(seed)

    augmented = augment(patch(affine), "full")

    image = augmented[IMAGE]
    clicks_voxel = (augmented[CLICKS][0].foreground_ras_mm - image.affine[:3, 3]) @ np.linalg.inv(
        image.affine[:3, :3]
    ).T
    for voxel in clicks_voxel:
        nearest = np.rint(voxel).astype(int)
        if ((nearest >= 3) & (nearest < np.array(image.spatial_shape) - 3)).all():
            assert np.abs(centre_of_blob_near(image.data[0].numpy(), nearest) - voxel).max() < 0.8


@pytest.mark.parametrize("seed", range(8))
def test_structure_stays_where_it_is_possible(seed):
    torch.manual_seed(seed)
    augmented = augment(patch(), "full")

    assert torch.equal(augmented[MASK].data, augmented[POSSIBLE].data)
    assert set(augmented[POSSIBLE].data.unique().tolist()) <= {0, 1}


def test_full_augmentation_moves_clicks_most_of_the_time():
    before = patch()[CLICKS][0].foreground_ras_mm
    moved = []
    for seed in range(20):
        torch.manual_seed(seed)
        moved.append(not np.allclose(augment(patch(), "full")[CLICKS][0].foreground_ras_mm, before, atol=0.3))

    assert 0.4 < np.mean(moved) < 0.95


def test_flips_change_the_order_of_voxels_and_not_the_world():
    torch.manual_seed(1)
    before, after = patch(), augment(patch(), "flip")

    np.testing.assert_array_equal(after[CLICKS][0].foreground_ras_mm, before[CLICKS][0].foreground_ras_mm)
    assert not torch.equal(after[IMAGE].data, before[IMAGE].data)
    assert after[IMAGE].get_center() == pytest.approx(before[IMAGE].get_center())


def test_nothing_changes_without_augmentation():
    before, after = patch(), augment(patch(), "none")

    assert torch.equal(after[IMAGE].data, before[IMAGE].data)
