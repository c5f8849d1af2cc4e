"""Where patches are taken."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
import torchio as tio

from lib.data.clicks import CLICKS, MASK
from lib.data.grid import points_on_grid


class AnnotatedPatchSampler(tio.data.PatchSampler):
    """Random patches of which a set share holds annotated voxels.

    A small object in a large scan would hardly ever be met by chance.

    Args:
        roi_size: voxels of a patch.
        annotated_fraction: probability (0 to 1) that a patch is placed around a point drawn between the
            clicks of one structure, or in its mask; the others lie anywhere.
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
        if torch.rand(1).item() < self.annotated_fraction:
            voxel = _annotated_voxel(subject)
            if voxel is not None:
                # The patch holds this voxel: its corner lies at most a patch before it, and not behind it.
                voxel = np.clip(voxel, 0, shape - 1)
                low, high = np.maximum(low, voxel - size + 1), np.minimum(high, voxel)
        i, j, k = (int(torch.randint(int(a), int(b) + 1, (1,))) for a, b in zip(low, high, strict=True))
        return i, j, k


def _annotated_voxel(subject: tio.Subject) -> np.ndarray | None:
    """Of a random structure: between two of its clicks, or in the mask where there are no clicks."""
    known: Any = subject
    structures = known[CLICKS]
    if structures:
        clicks = structures[int(torch.randint(len(structures), (1,)))].foreground_ras_mm
        # A convex combination lies anywhere inside the structure, and not only on its border.
        first, second = clicks[torch.randint(len(clicks), (2,)).numpy()]
        weight = torch.rand(1).item()
        return points_on_grid(weight * first + (1 - weight) * second, subject.get_first_image().affine)
    if MASK in subject:
        voxels = torch.nonzero(known[MASK].data[0])
        return voxels[int(torch.randint(len(voxels), (1,)))].numpy() if len(voxels) else None
    return None
