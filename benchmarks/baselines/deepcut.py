"""Implement DeepCut: pseudo-masks from boxes, by a dense CRF over the network's own output."""

from __future__ import annotations

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.geometry.boxes import Box
from lib.inference.dense_crf import mean_field

CONTEXT_VOXELS = 6
"""Margin around the box, so that the CRF sees background."""


def deepcut_mask(
    image: np.ndarray,
    foreground_probability: np.ndarray | None,
    points: ExtremePoints,
    *,
    margin_voxels: int,
) -> np.ndarray:
    """Return the mask to train on in the next round.

    At first it is the box (the paper's DeepCut_BB). Then, inside the relaxed box, it is what the dense CRF makes of
    the network's probability; outside, everything is background. Where the CRF leaves nothing, the box stays: an
    object that has vanished from all training masks would never come back.

    Source: Rajchl et al., IEEE TMI 2017 (DeepCut: object segmentation from bounding box annotations using
    convolutional neural networks). Here the network sees whole patches, not patches around each voxel, and the CRF's
    weights are this implementation's, the defaults of `mean_field`.

    Args:
        image: (X, Y, Z), of any scale; it is z-scored here.
        foreground_probability: (X, Y, Z) in [0, 1]; None in the first round.
        margin_voxels: by which the tight box is relaxed, at least 0.

    Returns:
        (X, Y, Z) bool, never empty.
    """
    tight = Box.around(points.foreground_voxel)
    box_mask = np.zeros(image.shape, dtype=bool)
    box_mask[tight.slices] = True
    if foreground_probability is None:
        return box_mask
    relaxed = tight.relaxed(margin_voxels, image.shape)
    crop = relaxed.relaxed(CONTEXT_VOXELS, image.shape)
    unary = np.zeros(image.shape)
    unary[relaxed.slices] = foreground_probability[relaxed.slices]
    z_scored = (image - image.mean()) / max(float(image.std()), np.finfo(np.float32).tiny)
    mask = np.zeros(image.shape, dtype=bool)
    mask[crop.slices] = mean_field(z_scored[crop.slices], unary[crop.slices]) > 0.5
    possible = np.zeros(image.shape, dtype=bool)
    possible[relaxed.slices] = True
    mask &= possible
    return mask if mask.any() else box_mask
