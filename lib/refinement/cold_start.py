"""A mask from clicks: six extreme points, no trained model needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from lib.annotations.extreme_points import ExtremePoints
from lib.refinement.click_influence import click_influence
from lib.refinement.graph_cut import graph_cut
from lib.refinement.intensity_model import fit, intensity_bins, normalised
from lib.refinement.shape_prior import extreme_point_gauge
from lib.refinement.working_grid import WorkingGrid
from lib.supervision.boxes import Box
from lib.supervision.geodesics import extreme_point_geodesics

EVERY_NEIGHBOUR = np.ones((3, 3, 3))


@dataclass(frozen=True)
class ColdStartOptions:
    """How a mask is made of clicks; each value is measured in docs/click_mask.md.

    Log-odds are natural: 1 makes a structure 2.7 times as likely.

    Attributes:
        margin_voxels: by which the tight box is relaxed; outside, everything is background (paper: r = 4).
        context: share of the tight box's extent, at least 0, by which the surroundings that the intensity
            model sees reach beyond it; never less than the margin.
        prior_strength: log-odds in the middle of the shape prior, at least 0; 0 at its surface, and less
            outside.
        largest_prior: limit of the prior's log-odds, more than 0, so that intensities can outweigh it.
        shrinkage: see `extreme_point_gauge`, in [0, 1).
        intensity_weight: of the intensities' log-odds against the prior, at least 0.
        iterations: of expectation maximisation, at least 0.
        geodesic_log_odds: added on the paths between opposite extreme points, at least 0.
        smoothness: see `graph_cut`, log-odds, at least 0.
        contrast: step of intensity that a border follows, more than 0, as a multiple of the root mean square
            of the steps between neighbours in the tight box.
        click_log_odds: added (foreground) or taken away (background) at a click beyond the six, at least 0.
        click_reach: how far that goes, as a share of the tight box's extent, more than 0.
        click_tolerance: difference of intensity over which it fades, as a share of the range of intensities,
            more than 0.
        network_confidence: in (0.5, 1); a trained network's probabilities are cut to [1 - this, this], so that
            clicks and intensities can outweigh it.
        max_voxels: above it the mask is made on coarser voxels and interpolated.
    """

    margin_voxels: int = 4
    context: float = 0.25
    prior_strength: float = 5.0
    largest_prior: float = 8.0
    shrinkage: float = 0.2
    intensity_weight: float = 1.3
    iterations: int = 3
    geodesic_log_odds: float = 3.0
    smoothness: float = 3.0
    contrast: float = 1.0
    click_log_odds: float = 8.0
    click_reach: float = 0.15
    click_tolerance: float = 0.15
    network_confidence: float = 0.98
    max_voxels: int = 400_000


def segment_from_clicks(
    image: np.ndarray,
    points: ExtremePoints,
    spacing_mm: tuple[float, float, float],
    *,
    foreground_probability: np.ndarray | None = None,
    options: ColdStartOptions = ColdStartOptions(),
) -> np.ndarray:
    """The structure that was clicked.

    Geodesics between opposite extreme points are foreground and everything outside the relaxed box is
    background (InExtremIS: Dorent et al., MICCAI 2021, Section 3). Between them a shape prior from the same
    points, an intensity model fitted to it, and a graph cut decide. The time depends on the size of the
    structure and not on that of the image.

    Args:
        image: (X, Y, Z), finite intensities.
        points: the clicks, in voxels of the image.
        spacing_mm: voxel size along each axis.
        foreground_probability: (X, Y, Z) in [0, 1], of a trained network.
        options: how the mask is made.

    Returns:
        (X, Y, Z) bool, which holds every foreground click and no background click; each of its parts
        (26-connected) holds a foreground click.

    Raises:
        ValueError: an image that is not 3D, a probability of another shape, a click outside the image, or a
            voxel clicked as both.
    """
    _check(image, points, foreground_probability)
    tight = Box.around(points.foreground_voxel)
    reach = np.maximum(np.ceil(options.context * np.array(tight.shape)), options.margin_voxels).astype(int)
    grid = WorkingGrid.over(tight.relaxed(tuple(reach), image.shape), spacing_mm, options.max_voxels)
    values = normalised(grid.averaged(image))
    probability = None if foreground_probability is None else grid.averaged(foreground_probability)
    log_odds = _log_odds(values, points, grid, probability, options)
    log_odds = _with_known_voxels(log_odds, points, tight.relaxed(options.margin_voxels, image.shape), grid)
    contrast = options.contrast * _typical_step(values, Box.around(grid.points(points.foreground_voxel)))
    mask = graph_cut(log_odds, values, grid.spacing_mm, smoothness=options.smoothness, contrast=contrast)
    result = np.zeros(image.shape, dtype=bool)
    result[grid.box.slices] = _clicked_parts(grid.on_image_voxels(mask), points, grid.box)
    return result


def _check(image: np.ndarray, points: ExtremePoints, foreground_probability: np.ndarray | None) -> None:
    if image.ndim != 3:
        raise ValueError(f"image has shape {image.shape}; expected (X, Y, Z)")
    if foreground_probability is not None and foreground_probability.shape != image.shape:
        raise ValueError(
            f"foreground_probability has shape {foreground_probability.shape}; expected the image's, {image.shape}"
        )
    for kind, clicks in (("foreground", points.foreground_voxel), ("background", points.background_voxel)):
        outside = clicks[((clicks < 0) | (clicks >= image.shape)).any(axis=1)]
        if len(outside):
            raise ValueError(f"{kind} click {outside[0].tolist()} is outside the image of shape {image.shape}")
    both = set(map(tuple, points.foreground_voxel.tolist())) & set(map(tuple, points.background_voxel.tolist()))
    if both:
        raise ValueError(f"voxel {list(both.pop())} is clicked as foreground and as background; remove one click")


def _log_odds(
    values: np.ndarray,
    points: ExtremePoints,
    grid: WorkingGrid,
    probability: np.ndarray | None,
    options: ColdStartOptions,
) -> np.ndarray:
    """(X, Y, Z) of the grid: what shape, network, corrective clicks, intensities and geodesics say together."""
    extremes = grid.points(points.extremes_voxel)
    gauge = extreme_point_gauge(extremes, grid.shape, shrinkage=options.shrinkage)
    prior = np.clip(options.prior_strength * (1 - gauge), -options.largest_prior, options.largest_prior)
    if probability is not None:
        prior = prior + logit(np.clip(probability, 1 - options.network_confidence, options.network_confidence))
    prior = prior + _corrections(values, points, grid, options)
    bins = intensity_bins(values, grid.spacing_mm)
    log_odds = fit(bins, prior, weight=options.intensity_weight, iterations=options.iterations)
    paths = extreme_point_geodesics(values, extremes, grid.spacing_mm, background_probability=expit(-log_odds))
    for path in paths:
        log_odds[tuple(path.T)] += options.geodesic_log_odds
    return log_odds


def _corrections(
    values: np.ndarray, points: ExtremePoints, grid: WorkingGrid, options: ColdStartOptions
) -> np.ndarray | float:
    """(X, Y, Z) log-odds of the clicks beyond the six: they stand in something that was missed or leaked into."""
    extremes = {tuple(click) for click in points.extremes_voxel.reshape(6, 3).tolist()}
    more = np.array([c for c in points.foreground_voxel.tolist() if tuple(c) not in extremes], dtype=int).reshape(-1, 3)
    reach = options.click_reach * np.array(Box.around(grid.points(points.foreground_voxel)).shape)
    return options.click_log_odds * (
        click_influence(values, grid.points(more), reach, tolerance=options.click_tolerance)
        - click_influence(
            values, _inside(grid.points(points.background_voxel), grid.shape), reach, tolerance=options.click_tolerance
        )
    )


def _with_known_voxels(log_odds: np.ndarray, points: ExtremePoints, relaxed: Box, grid: WorkingGrid) -> np.ndarray:
    """Infinite log-odds where the clicks leave no choice."""
    known = np.full(log_odds.shape, -np.inf, dtype=np.float32)
    open_to_choice = Box.around(grid.points(np.array([relaxed.start, np.subtract(relaxed.stop, 1)]))).slices
    known[open_to_choice] = log_odds[open_to_choice]
    known[tuple(_inside(grid.points(points.background_voxel), grid.shape).T)] = -np.inf
    known[tuple(grid.points(points.foreground_voxel).T)] = np.inf
    return known


def _typical_step(values: np.ndarray, tight: Box) -> float:
    """Root mean square of the differences between neighbours in a box."""
    inside = values[tight.slices]
    steps = np.concatenate([np.diff(inside, axis=axis).ravel() for axis in range(3)])
    return max(float(np.sqrt(np.mean(steps**2))), 1e-3) if steps.size else 1.0


def _clicked_parts(mask: np.ndarray, points: ExtremePoints, box: Box) -> np.ndarray:
    """The mask's parts that hold a foreground click, with their holes filled but those of background clicks."""
    clicks = tuple((points.foreground_voxel - box.start).T)
    background = tuple(_inside(points.background_voxel - np.array(box.start), mask.shape).T)
    mask[clicks], mask[background] = True, False
    holes, _ = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    kept_open = np.append(0, holes[background])
    mask = mask | ~np.isin(holes, kept_open)
    parts, _ = ndimage.label(mask, EVERY_NEIGHBOUR)
    return np.isin(parts, parts[clicks])


def _inside(points_voxel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return points_voxel[((points_voxel >= 0) & (points_voxel < shape)).all(axis=1)]
