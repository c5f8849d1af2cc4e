"""Draw the anatomy of a demo subject: the MNI152 template in a head, deformed per subject."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
import torchio as tio
from scipy import ndimage

# Intensities are on the template's scale, on which white matter is about 0.85 and grey matter 0.6.
WHITE_MATTER = 0.78
BRAIN = 0.1
FLUID = 0.2
# Intensities between the brain and its hull, by distance: fluid, then marrow and muscle, as in the skull base.
GAP_MM, GAP = (3.0, 6.0), (FLUID, 0.5)
# Intensities around the hull, by distance: fluid, table, marrow, table, fat, skin, air.
LAYER_MM = (0.0, 2.0, 2.8, 3.8, 4.8, 5.8, 6.8, 7.8, 11.5, 12.3, 13.5, 14.3)
LAYER = (0.2, 0.2, 0.06, 0.06, 0.45, 0.45, 0.06, 1.05, 1.05, 0.6, 0.6, 0.0)
# The hull closes gaps narrower than twice this; a smaller value lets the scalp dip into the skull base.
HULL_CLOSING_MM = 26.0
# Low and high corner (|x|, y, z of RAS mm), the same on both sides.
CEREBELLOPONTINE_ANGLE_MM = ((10, -36, -44), (24, -20, -30))
DEEP_MM = 8


class Head(NamedTuple):
    """Head on voxels of 1 mm.

    Attributes:
        intensity: (X, Y, Z) float32 in [0, 1.05].
        hull_mm: (X, Y, Z) float32, signed distance to the hull of the brain, negative inside.
        affine: (4, 4), voxels to RAS mm.
    """

    intensity: np.ndarray
    hull_mm: np.ndarray
    affine: np.ndarray


@cache
def head_template() -> Head:
    """Return the MNI152 T1 template of the nilearn package, without a download, with a skull and a scalp around it."""
    from nilearn.datasets import load_mni152_template  # imported late: only the demo needs nilearn

    template = load_mni152_template(resolution=1)
    brain = template.get_fdata(dtype=np.float32)
    brain_mm, hull_mm = _distances_mm(brain > BRAIN)
    around = np.where(hull_mm < 0, np.interp(brain_mm, GAP_MM, GAP), np.interp(hull_mm, LAYER_MM, LAYER))
    return Head(np.maximum(brain, around.astype(np.float32)), hull_mm, template.affine)


def _distances_mm(brain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute distance to the brain and signed distance to the closed brain, negative inside, on a grid of 2 mm."""
    brain_mm = 2 * ndimage.distance_transform_edt(~brain[::2, ::2, ::2])
    dilated = brain_mm < HULL_CLOSING_MM
    outside_mm = 2 * (ndimage.distance_transform_edt(~dilated) - ndimage.distance_transform_edt(dilated))
    return _refined(brain_mm, brain.shape), _refined(outside_mm + HULL_CLOSING_MM, brain.shape)


def _refined(coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    smooth = ndimage.gaussian_filter(coarse.astype(np.float32), 1.0)
    return ndimage.affine_transform(smooth, np.full(3, 0.5), output_shape=shape, order=1, mode="nearest")


@cache
def lesion_sites_mm() -> tuple[np.ndarray, np.ndarray]:
    """Return possible sites of a lesion, (N, 3) RAS mm each: deep white matter, the cerebellopontine angles."""
    head = head_template()
    intensity = head.intensity[::2, ::2, ::2]
    grid_mm = nib.affines.apply_affine(head.affine, 2 * np.moveaxis(np.indices(intensity.shape), 0, -1))
    deep = head.hull_mm[::2, ::2, ::2] < -DEEP_MM
    white = ndimage.uniform_filter(intensity, 3) > WHITE_MATTER
    above_brain_stem = grid_mm[..., 2] > -25
    low, high = CEREBELLOPONTINE_ANGLE_MM
    either_side_mm = np.concatenate([np.abs(grid_mm[..., :1]), grid_mm[..., 1:]], axis=-1)
    in_angle = ((either_side_mm >= low) & (either_side_mm <= high)).all(axis=-1)
    return grid_mm[deep & white & above_brain_stem], grid_mm[in_angle & (intensity < 0.4)]


def subject_anatomy(affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Deform the head randomly, by torch's generator, and resample it to a grid (X, Y, Z) float32.

    Only a part around the grid is deformed, because the elastic deformation of a whole head takes seconds.
    """
    head = head_template()
    corners = nib.affines.apply_affine(affine, np.argwhere(np.ones((2, 2, 2))) * (np.array(shape) - 1))
    corners_voxel = nib.affines.apply_affine(np.linalg.inv(head.affine), corners)
    margin = 10 + 0.15 * np.ptp(corners_voxel, axis=0)  # maximum displacement of the deformation
    low = np.clip(np.floor(corners_voxel.min(axis=0) - margin).astype(int), 0, None)
    high = np.minimum(np.ceil(corners_voxel.max(axis=0) + margin).astype(int), head.intensity.shape)
    crop = head.intensity[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    crop_affine = head.affine @ nib.affines.from_matvec(np.eye(3), low)
    subject = tio.Compose(
        [
            tio.RandomAffine(scales=0.1, degrees=8, translation=3, default_pad_value=0),
            tio.RandomElasticDeformation(num_control_points=7, max_displacement=5, locked_borders=2),
            tio.Resample((shape, affine)),
        ]
    )
    return subject(tio.ScalarImage(tensor=torch.from_numpy(crop)[None], affine=crop_affine)).data[0].numpy()
