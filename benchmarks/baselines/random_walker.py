"""Compute random walker pseudo-masks from extreme points."""

from __future__ import annotations

import numpy as np
from skimage.segmentation import random_walker

from lib.annotations.extreme_points import ExtremePoints
from lib.geometry.boxes import Box
from lib.supervision.geodesics import extreme_point_geodesics

FOREGROUND, BACKGROUND, UNSEEDED = 1, 2, 0
SURE = 0.95
"""Minimum probability of the network at a seed."""
SOLVER_TOLERANCE = 1e-8
"""With scikit-image's default of 1e-3, probabilities leave [0, 1] in noisy images."""


def random_walker_mask(
    image: np.ndarray,
    points: ExtremePoints,
    spacing_mm: tuple[float, float, float],
    *,
    margin_voxels: int,
    foreground_probability: np.ndarray | None = None,
    beta: float = 130.0,
) -> np.ndarray:
    """Compute the voxels from which a random walker meets the structure's seeds first.

    Seeds of the structure are the clicks and the shortest paths between them, by the image gradient; seeds of the
    background is everything outside of the relaxed box. In later rounds the voxels that the network is sure of are
    seeds too, inside the box, unless they contradict the first ones.

    Source: Roth et al. 2021 (Going to extremes: weakly supervised medical image segmentation); the random walker
    is scikit-image's. That the network's sure voxels become seeds, and from which probability on, is chosen here.

    Args:
        image: (X, Y, Z), finite.
        spacing_mm: of its voxels.
        margin_voxels: by which the tight box is relaxed, at least 0.
        foreground_probability: (X, Y, Z) in [0, 1], of the network of the round before.
        beta: how strongly an edge stops the walker; scikit-image's default.

    Returns:
        (X, Y, Z) bool; holds every click on the structure.
    """
    relaxed = Box.around(points.foreground_voxel).relaxed(margin_voxels, image.shape)
    # A shell of background around the box; the walker need not go further.
    crop = relaxed.relaxed(1, image.shape)
    seeds = np.full(image.shape, BACKGROUND, dtype=np.int8)
    seeds[relaxed.slices] = UNSEEDED
    if foreground_probability is not None:
        seeds[relaxed.slices] = np.select(
            [foreground_probability[relaxed.slices] >= SURE, foreground_probability[relaxed.slices] <= 1 - SURE],
            [FOREGROUND, BACKGROUND],
            UNSEEDED,
        )
    paths = extreme_point_geodesics(image, points.extremes_voxel, spacing_mm, euclidean=False)
    seeds[tuple(np.concatenate(paths).T)] = FOREGROUND
    seeds[tuple(points.background_voxel.T)] = BACKGROUND
    seeds[tuple(points.foreground_voxel.T)] = FOREGROUND
    if not (seeds == UNSEEDED).any():
        return seeds == FOREGROUND
    mask = np.zeros(image.shape, dtype=bool)
    inside = np.asarray(image[crop.slices], np.float64)
    # The walker's beta is for intensities of deviation 1.
    inside = (inside - inside.mean()) / max(inside.std(), np.finfo(float).tiny)
    if (seeds[crop.slices] == BACKGROUND).any():
        labels = random_walker(
            inside, seeds[crop.slices], beta=beta, mode="cg_j", tol=SOLVER_TOLERANCE, spacing=spacing_mm
        )
        mask[crop.slices] = labels == FOREGROUND
    else:
        mask[crop.slices] = True
    return mask
