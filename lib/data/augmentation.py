"""Augmentation of patches that takes the clicks along."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
import torch
import torchio as tio
from torchio.transforms.augmentation.spatial.random_affine import Affine
from torchio.transforms.augmentation.spatial.random_elastic_deformation import ElasticDeformation

from lib.data.clicks import CLICKS

Augmentation = Literal["none", "flip", "full"]

CONTROL_POINTS = 7
MAX_DISPLACEMENT_MM = 4.0
# Of the distance of control points; from one half on, space may fold over (TorchIO warns of it).
FOLD_FREE = 0.45
# Each step leaves less than half of the error of the one before, for all deformations drawn here.
INVERSION_STEPS = 24


def augment(patch: tio.Subject, augmentation: Augmentation) -> tio.Subject:
    """A patch as another scanner, or another patient, might have given it.

    `flip` reverses random axes (what the authors' public code does); `full` turns, scales and bends the patch
    as well, and changes its contrast, noise and sharpness.
    """
    if augmentation == "none":
        return patch
    if augmentation == "full":
        patch = _warped(patch)
    return GridFlip()(patch)


class GridFlip(tio.transforms.SpatialTransform):
    """Reverses the voxel order along random axes, in the array and in the affine.

    The network sees a mirrored patch, while world coordinates of clicks stay true.
    """

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        axes = torch.nonzero(torch.rand(3) < 0.5).flatten().tolist()
        for image in self.get_images(subject):
            flip = np.eye(4)
            for axis in axes:
                flip[axis, axis] = -1
                flip[axis, 3] = image.spatial_shape[axis] - 1
            image.set_data(image.data.flip([axis + 1 for axis in axes]))
            image.affine = image.affine @ flip
        return subject


def _warped(patch: tio.Subject) -> tio.Subject:
    # What was done before is of no concern, and TorchIO cannot make all of it again.
    patch.clear_history()
    image = patch.get_first_image()
    control_distance_mm = np.array(image.spatial_shape) * image.spacing / (CONTROL_POINTS - 3)
    transform = tio.Compose(
        [
            tio.RandomAffine(scales=0.1, degrees=10, default_pad_value=0, p=0.5),
            tio.RandomElasticDeformation(
                CONTROL_POINTS,
                tuple(np.minimum(FOLD_FREE * control_distance_mm, MAX_DISPLACEMENT_MM)),
                locked_borders=2,
                p=0.3,
            ),
            tio.RandomGamma(log_gamma=0.2, p=0.3),
            tio.RandomBlur(std=(0, 0.7), p=0.2),
            tio.RandomNoise(std=(0, 0.1), p=0.3),
        ]
    )
    warped: Any = transform(patch)
    for applied in warped.get_applied_transforms():
        to_source = source_transform(applied, image)
        if to_source is not None:
            warped[CLICKS] = [clicks.moved(lambda p, t=to_source: moved_points(p, t)) for clicks in warped[CLICKS]]
    return warped


@singledispatch
def source_transform(transform: tio.Transform, image: tio.Image) -> sitk.Transform | None:
    """Where the content of each point of a transformed image came from (LPS mm), or None if all stays in place."""
    return None


@source_transform.register
def _(transform: Affine, image: tio.Image) -> sitk.Transform:
    return transform.get_affine_transform(image)


@source_transform.register
def _(transform: ElasticDeformation, image: tio.Image) -> sitk.Transform:
    return transform.get_bspline_transform(image.as_sitk())


def moved_points(points_ras_mm: np.ndarray, to_source: sitk.Transform) -> np.ndarray:
    """Where points (N, 3) of an image lie after it was resampled through `to_source`, in RAS mm.

    Resampling asks where each voxel comes from, and points ask where they go: the inverse, found by
    fixed-point iteration.
    """
    ras_to_lps = np.array([-1.0, -1.0, 1.0])
    source_lps_mm = np.asarray(points_ras_mm, dtype=np.float64) * ras_to_lps
    moved_lps_mm = source_lps_mm.copy()
    for _ in range(INVERSION_STEPS):
        found = np.array([to_source.TransformPoint(point.tolist()) for point in moved_lps_mm]).reshape(-1, 3)
        moved_lps_mm += source_lps_mm - found
    return moved_lps_mm * ras_to_lps
