"""Where patches are taken, and how they are flipped."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
import torchio as tio

from lib.data.grid import points_on_grid


class AnnotatedPatchSampler(tio.data.PatchSampler):
    """Random patches of which a set share holds clicked voxels.

    A small object in a large scan would hardly ever be met by chance.

    Args:
        roi_size: voxels of a patch.
        annotated_fraction: probability (0 to 1) that a patch is placed around a point drawn between the
            clicks of one structure; the others lie anywhere.
    """

    def __init__(self, roi_size: tuple[int, int, int], annotated_fraction: float) -> None:
        super().__init__(roi_size)
        self.annotated_fraction = annotated_fraction

    def _generate_patches(self, subject: tio.Subject, num_patches: int | None = None) -> Generator[tio.Subject]:
        while num_patches is None or num_patches > 0:
            yield self.extract_patch(subject, self._corner(subject))
            num_patches = None if num_patches is None else num_patches - 1

    def _corner(self, subject: tio.Subject) -> tuple[int, int, int]:
        shape, size = np.array(subject.spatial_shape), self.patch_size.astype(int)
        low, high = np.zeros(3, dtype=int), shape - size
        if subject["clicks"] and torch.rand(1).item() < self.annotated_fraction:
            # The patch holds this voxel: its corner lies at most a patch before it, and not behind it.
            voxel = np.clip(self._voxel_between_clicks(subject), 0, shape - 1)
            low, high = np.maximum(low, voxel - size + 1), np.minimum(high, voxel)
        i, j, k = (int(torch.randint(int(a), int(b) + 1, (1,))) for a, b in zip(low, high, strict=True))
        return i, j, k

    @staticmethod
    def _voxel_between_clicks(subject: tio.Subject) -> np.ndarray:
        """A random convex combination of two clicks: anywhere inside the structure, not only on its border."""
        structures: Any = subject["clicks"]
        clicks = structures[int(torch.randint(len(structures), (1,)))].foreground_ras_mm
        first, second = clicks[torch.randint(len(clicks), (2,)).numpy()]
        weight = torch.rand(1).item()
        return points_on_grid(weight * first + (1 - weight) * second, subject.get_first_image().affine)


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
