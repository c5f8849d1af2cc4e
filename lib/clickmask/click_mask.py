"""Make the mask of a structure from its clicks, with or without trained networks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.click_mask_options import DEFAULT_OPTIONS, ClickMaskOptions
from lib.clickmask.click_network import ClickNetwork
from lib.clickmask.placed_atlas import PlacedAtlas
from lib.clickmask.shape_atlas import ShapeAtlas
from lib.clickmask.structure_problem import StructureProblem, inside
from lib.clickmask.voxel_features import VoxelFeatures
from lib.clickmask.working_grid import WorkingGrid
from lib.geometry.boxes import Box

EVERY_NEIGHBOUR = np.ones((3, 3, 3))


def segment_from_clicks(
    image: np.ndarray,
    points: ExtremePoints,
    spacing_mm: tuple[float, float, float],
    *,
    foreground_probability: np.ndarray | None = None,
    prior_weight: float = 1.0,
    atlas: ShapeAtlas | None = None,
    network: ClickNetwork | None = None,
    affine_ras: np.ndarray | None = None,
    options: ClickMaskOptions = DEFAULT_OPTIONS,
) -> np.ndarray:
    """Segment the clicked structure.

    Geodesics between opposite extreme points are foreground, and everything outside the relaxed box is
    background (InExtremIS: Dorent et al., MICCAI 2021, Section 3). In between, the mask is the graph cut of the
    log-odds of a shape prior from the same points, an intensity model fitted to it, and a small network trained on
    structures of many kinds. The time depends on the size of the structure and not on that of the image.

    Args:
        image: (X, Y, Z), finite intensities.
        points: the clicks, in voxels of the image.
        spacing_mm: voxel size along each axis, more than 0.
        foreground_probability: (X, Y, Z) in [0, 1], of a trained network.
        prior_weight: of that network, in [0, 1]; 0 ignores it.
        atlas: of the shapes of structures of this label, combined with the generic prior.
        network: corrects the log-odds of structures of this label; requires the atlas.
        affine_ras: (4, 4) of the image, voxel to RAS mm; required with an atlas, whose axes are anatomical.
        options: parameters of the method.

    Returns:
        (X, Y, Z) bool. It contains every foreground click and no background click, and each of its 26-connected
        components contains a foreground click.

    Raises:
        ValueError: an image that is not 3D, a probability of another shape, a prior weight out of range, a click
            outside the image, a voxel clicked as both, or an atlas without an affine.
    """
    _check(image, points, foreground_probability, prior_weight)
    if atlas is not None and affine_ras is None:
        raise ValueError("affine_ras is None; expected the image's affine, because the axes of an atlas are anatomical")
    placed = None if atlas is None or affine_ras is None else PlacedAtlas.of(atlas, network, image, points, affine_ras)
    problem = StructureProblem.of(image, points, spacing_mm, foreground_probability, prior_weight, placed, options)
    log_odds = problem.log_odds()
    mask = problem.without_closed_holes(problem.cut(log_odds))
    # Interpolation between coarse voxels would remove the paths, which are one voxel wide and connect the mask.
    paths = mask & (log_odds >= options.geodesic_log_odds)
    fine = problem.grid.on_image_voxels(mask) | problem.grid.repeated(paths)
    result = np.zeros(image.shape, dtype=bool)
    result[problem.grid.box.slices] = _clicked_parts(fine, points, problem.grid.box)
    return result


def features_of(
    image: np.ndarray,
    points: ExtremePoints,
    spacing_mm: tuple[float, float, float],
    options: ClickMaskOptions = DEFAULT_OPTIONS,
) -> tuple[VoxelFeatures, WorkingGrid, Box]:
    """Return the structure net's features in `segment_from_clicks`, their grid, and the box of the grid they cover."""
    problem = StructureProblem.of(image, points, spacing_mm, None, 0.0, None, options)
    prior = problem.generic_prior()
    log_odds = problem.fitted(prior)
    return problem.features(prior, log_odds, problem.paths(log_odds)), problem.grid, problem.relaxed


def _check(
    image: np.ndarray, points: ExtremePoints, foreground_probability: np.ndarray | None, prior_weight: float
) -> None:
    if not 0 <= prior_weight <= 1:
        raise ValueError(f"prior_weight is {prior_weight}; expected a number in [0, 1]")
    if image.ndim != 3:
        raise ValueError(f"image has shape {image.shape}; expected (X, Y, Z)")
    if foreground_probability is not None and foreground_probability.shape != image.shape:
        raise ValueError(
            f"foreground_probability has shape {foreground_probability.shape}; expected the image's, {image.shape}"
        )
    for kind, clicks in (("foreground", points.foreground_voxel), ("background", points.background_voxel)):
        outside = clicks[((clicks < 0) | (clicks >= image.shape)).any(axis=1)]
        if len(outside):
            raise ValueError(
                f"the {kind} click {outside[0].tolist()} is outside the image of shape {image.shape}; "
                "move it or leave it out"
            )
    both = set(map(tuple, points.foreground_voxel.tolist())) & set(map(tuple, points.background_voxel.tolist()))
    if both:
        raise ValueError(f"the voxel {list(both.pop())} is clicked as foreground and as background; remove one click")


def _clicked_parts(mask: np.ndarray, points: ExtremePoints, box: Box) -> np.ndarray:
    """Return the components of a mask of a box that contain a foreground click, without the background clicks."""
    foreground = tuple((points.foreground_voxel - box.start).T)
    mask[foreground] = True
    mask[tuple(inside(points.background_voxel - np.array(box.start), mask.shape).T)] = False
    parts, _ = ndimage.label(mask, EVERY_NEIGHBOUR)
    return np.isin(parts, parts[foreground])
