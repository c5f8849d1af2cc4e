"""A mask from clicks: six extreme points, no trained model needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from lib.annotations.extreme_points import ExtremePoints
from lib.refinement.graph_cut import HARD_LOG_ODDS, graph_cut
from lib.refinement.intensity_model import fit, intensity_bins
from lib.refinement.shape_prior import extreme_point_gauge
from lib.supervision.boxes import Box
from lib.supervision.geodesics import extreme_point_geodesics

EVERY_NEIGHBOUR = np.ones((3, 3, 3))


@dataclass(frozen=True)
class ColdStartOptions:
    margin_voxels: int = 4
    context: float = 0.25
    prior_strength: float = 6.0
    shrinkage: float = 0.15
    intensity_weight: float = 0.6
    iterations: int = 4
    geodesic_log_odds: float = 3.0
    smoothness: float = 0.5


def segment_from_clicks(
    image: np.ndarray,
    points: ExtremePoints,
    spacing_mm: tuple[float, float, float],
    *,
    foreground_probability: np.ndarray | None = None,
    options: ColdStartOptions = ColdStartOptions(),
) -> np.ndarray:
    """The structure that was clicked.

    Args:
        image: (X, Y, Z), finite intensities.
        points: the clicks.
        spacing_mm: voxel size along each axis.
        foreground_probability: (X, Y, Z) in [0, 1], of a trained network.

    Returns:
        (X, Y, Z) bool, which holds every foreground click and no background click.

    Raises:
        ValueError: an image that is not 3D, a click outside the image, or a voxel clicked as both.
    """
    tight = Box.around(points.foreground_voxel)
    relaxed = tight.relaxed(options.margin_voxels, image.shape)
    ring = np.maximum(np.ceil(options.context * np.array(tight.shape)), options.margin_voxels).astype(int)
    context = tight.relaxed(tuple(ring), image.shape)
    values = np.asarray(image[context.slices], dtype=np.float32)
    extremes = points.extremes_voxel - np.array(context.start)
    clicks = points.foreground_voxel - np.array(context.start)
    prior = options.prior_strength * (1 - extreme_point_gauge(extremes, context.shape, shrinkage=options.shrinkage))
    if foreground_probability is not None:
        prior = prior + logit(np.clip(foreground_probability[context.slices], 0.02, 0.98))
    log_odds = fit(
        intensity_bins(values, spacing_mm),
        np.clip(prior, -8, 8),
        weight=options.intensity_weight,
        iterations=options.iterations,
    )
    paths = extreme_point_geodesics(values, extremes, spacing_mm, background_probability=1 - expit(log_odds))
    log_odds = np.array(log_odds)
    for path in paths:
        log_odds[tuple(path.T)] += options.geodesic_log_odds
    outside = np.ones(context.shape, dtype=bool)
    outside[relaxed.shifted(-np.array(context.start)).slices] = False
    log_odds = np.clip(log_odds, -HARD_LOG_ODDS / 2, HARD_LOG_ODDS / 2)
    log_odds[outside] = -HARD_LOG_ODDS
    background = points.background_voxel - np.array(context.start)
    background = background[np.all((background >= 0) & (background < context.shape), axis=1)]
    log_odds[tuple(background.T)] = -HARD_LOG_ODDS
    log_odds[tuple(clicks.T)] = HARD_LOG_ODDS
    inner = tight.shifted(-np.array(context.start)).slices
    steps = [np.diff(values[inner], axis=a).ravel() ** 2 for a in range(3)]
    contrast = max(float(np.sqrt(np.concatenate(steps).mean())), 1e-6) if tight.shape != (1, 1, 1) else 1.0
    mask = graph_cut(log_odds, values, spacing_mm, smoothness=options.smoothness, contrast=contrast)
    mask = ndimage.binary_fill_holes(mask)
    mask[tuple(background.T)] = False
    components, _ = ndimage.label(mask, EVERY_NEIGHBOUR)
    result = np.zeros(image.shape, dtype=bool)
    result[context.slices] = np.isin(components, components[tuple(clicks.T)])
    return result
