"""Small patches with clicks and masks."""

import numpy as np
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.data.patches import Patch, PatchBatch

SHAPE = (20, 18, 16)
SPACING_MM = (1.0, 1.0, 2.0)
MARGIN = 2
LABELS = ("lesion", "cyst")
LESION = np.array([[3, 6, 5], [11, 6, 5], [7, 3, 5], [7, 10, 5], [7, 6, 3], [7, 6, 8]])
CYST = LESION + [5, 5, 5]


def clicked(label, points=LESION, background=None):
    return ExtremePoints.from_clicks(label, points, None if background is None else np.array(background))


BOTH_CLICKED = (clicked("lesion"), clicked("cyst", CYST))


def relaxed_box(points):
    """Return the relaxed box (X, Y, Z) bool, by the distance of every voxel from the tight box."""
    voxels = np.stack(np.indices(SHAPE), axis=-1)
    low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0)
    return torch.from_numpy(((voxels >= low - MARGIN) & (voxels <= high + MARGIN)).all(axis=-1))


def patch(*points, seed=0, image=None, **known):
    """Make a patch with clicks; `known` are other attributes of `Patch`."""
    if image is None:
        image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return Patch(image, tuple(points), tuple(relaxed_box(p) for p in points), **known)


def masked(mask=None, labels=LABELS, points=(), **known):
    mask = random_mask() if mask is None else mask
    return patch(*points, mask=mask, mask_labels=labels, **known)


def random_mask(classes=(0, 1, 2), seed=2):
    drawn = torch.randint(0, len(classes), SHAPE, generator=torch.Generator().manual_seed(seed))
    return torch.tensor(classes)[drawn]


def batch(*patches):
    return PatchBatch.of(patches)
