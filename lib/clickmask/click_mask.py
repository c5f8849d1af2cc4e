"""A mask from clicks: six extreme points, no trained model needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.box_frame import BoxFrame
from lib.clickmask.click_influence import click_influence, click_shift
from lib.clickmask.click_network import INTENSITY_WEIGHT, ITERATIONS, ClickNetwork, network_input
from lib.clickmask.graph_cut import graph_cut
from lib.clickmask.intensity_model import fit, normalised, typical_step
from lib.clickmask.shape_atlas import PRIOR_STRENGTH, SHRINKAGE, ShapeAtlas
from lib.clickmask.shape_prior import extreme_point_gauge
from lib.clickmask.structure_net import shipped
from lib.clickmask.voxel_features import VoxelFeatures, voxel_features
from lib.clickmask.working_grid import WorkingGrid
from lib.supervision.boxes import Box
from lib.supervision.geodesics import extreme_point_geodesics

EVERY_NEIGHBOUR = np.ones((3, 3, 3))
LEAST_SMOOTHNESS = 0.1


@dataclass(frozen=True)
class ClickMaskOptions:
    """How a mask is made of clicks; docs/method.md gives the formulas.

    Log-odds are natural: 1 makes a structure 2.7 times as likely.

    Attributes:
        margin_voxels: by which the tight box is relaxed, at least 0; outside, everything is background
            (the paper trains with 4).
        context: share of the tight box's extent, at least 0, by which the surroundings that the intensity
            model sees reach beyond it; never less than the margin.
        prior_strength: log-odds in the middle of the shape prior, at least 0; 0 at its surface, and less
            outside.
        shrinkage: of the shape prior, in [0, 1); see `extreme_point_gauge`.
        intensity_weight: of the intensities' log-odds against the prior, at least 0.
        iterations: of expectation maximisation, at least 0.
        net_share: in [0, 1], of the log-odds of the structure net against those of generic prior and intensities;
            with an atlas, times the root of the generic prior's share; a click network takes its place.
        geodesic_log_odds: on the paths between opposite extreme points, at least 0; more than 6 times the
            smoothness makes them foreground, whatever lies around.
        smoothness: of the mask's surface, log-odds, at least 0; see `graph_cut`.
        corrected_smoothness: the same, of log-odds that a click network has corrected.
        corrected_bias: added to these log-odds: of two masks in doubt the larger one has the higher Dice.
        smallest_share: in [0, 1], of the voxels that are likely the structure's; a mask that holds fewer is cut
            again with half the smoothness.
        contrast: step of intensity that a border follows, more than 0, as a multiple of the root mean square
            of the steps between neighbours in the tight box.
        click_log_odds: at a corrective foreground click, instead of what all else says, and its negative at a
            background click; at least 0.
        click_reach: how far that goes, more than 0, as a multiple of the click's distance to the border of
            the mask that it corrects.
        click_tolerance: difference of intensity over which it fades, more than 0, as a share of the range of
            intensities.
        click_shift: log-odds added around a corrective click, at least 0, whatever the intensity; less where another
            click says that the mask is right.
        click_shift_reach: how far that goes, more than 0, as a share of the tight box's extent along each axis.
        network_confidence: in (0.5, 1); the probabilities of a network that is fully trusted are cut to
            [1 - this, this], so that clicks and intensities can outweigh it; of one that is not, to less.
        max_voxels: at least 1; a larger box is worked on in coarser voxels, and the mask interpolated.
    """

    margin_voxels: int = 2
    context: float = 0.15
    prior_strength: float = PRIOR_STRENGTH
    shrinkage: float = SHRINKAGE
    intensity_weight: float = INTENSITY_WEIGHT
    iterations: int = ITERATIONS
    net_share: float = 0.5
    geodesic_log_odds: float = 50.0
    smoothness: float = 2.0
    corrected_smoothness: float = 1.0
    corrected_bias: float = 1.25
    smallest_share: float = 0.6
    contrast: float = 1.0
    click_log_odds: float = 8.0
    click_reach: float = 0.75
    click_tolerance: float = 0.1
    click_shift: float = 1.0
    click_shift_reach: float = 0.2
    network_confidence: float = 0.9
    max_voxels: int = 350_000


def segment_from_clicks(
    image: np.ndarray,
    points: ExtremePoints,
    spacing_mm: tuple[float, float, float],
    *,
    foreground_probability: np.ndarray | None = None,
    trust: float = 1.0,
    atlas: ShapeAtlas | None = None,
    network: ClickNetwork | None = None,
    affine_ras: np.ndarray | None = None,
    options: ClickMaskOptions = ClickMaskOptions(),
) -> np.ndarray:
    """The structure that was clicked.

    Geodesics between opposite extreme points are foreground, and everything outside the relaxed box is
    background (InExtremIS: Dorent et al., MICCAI 2021, Section 3). Between them a shape prior from the same
    points, an intensity model fitted to it, a small network that was trained on structures of many kinds, and
    a graph cut decide. The time depends on the size of the structure and not on that of the image.

    Args:
        image: (X, Y, Z), finite intensities.
        points: the clicks, in voxels of the image.
        spacing_mm: voxel size along each axis, more than 0.
        foreground_probability: (X, Y, Z) in [0, 1], of a trained network.
        trust: in that network, in [0, 1]; 0 is as without it.
        atlas: of the shapes of structures of this label, beside the generic prior.
        network: corrects the log-odds of structures of this label; it needs the atlas.
        affine_ras: (4, 4) of the image, voxel to RAS mm; atlas and network lie in the patient.
        options: how the mask is made.

    Returns:
        (X, Y, Z) bool, which holds every foreground click and no background click; each of its parts
        (26-connected) holds a foreground click.

    Raises:
        ValueError: an image that is not 3D, a probability of another shape, a trust out of range, a click outside
            the image, a voxel clicked as both, or an atlas without an affine.
    """
    _check(image, points, foreground_probability, trust)
    if atlas is not None and affine_ras is None:
        raise ValueError("affine_ras is None; expected the image's affine, for an atlas lies in the patient")
    placed = None if atlas is None or affine_ras is None else _PlacedAtlas.of(atlas, network, image, points, affine_ras)
    problem = _Problem.of(image, points, spacing_mm, foreground_probability, trust, placed, options)
    log_odds = problem.log_odds()
    mask = problem.without_closed_holes(problem.cut(log_odds))
    # One voxel wide, the paths would be lost between coarse voxels, and with them what holds the mask together.
    paths = mask & (log_odds >= options.geodesic_log_odds)
    fine = problem.grid.on_image_voxels(mask) | problem.grid.repeated(paths)
    result = np.zeros(image.shape, dtype=bool)
    result[problem.grid.box.slices] = _clicked_parts(fine, points, problem.grid.box)
    return result


def features_of(
    image: np.ndarray,
    points: ExtremePoints,
    spacing_mm: tuple[float, float, float],
    options: ClickMaskOptions = ClickMaskOptions(),
) -> tuple[VoxelFeatures, WorkingGrid, Box]:
    """What the structure net sees in `segment_from_clicks`, to train it: for a region, a box of voxels of the grid."""
    problem = _Problem.of(image, points, spacing_mm, None, 0.0, None, options)
    prior = problem.generic_prior()
    log_odds = problem.fitted(prior)
    return problem.features(prior, log_odds, problem.paths(log_odds)), problem.grid, problem.relaxed


def context_box(
    points: ExtremePoints, image_shape: tuple[int, ...], options: ClickMaskOptions = ClickMaskOptions()
) -> Box:
    """The part of an image that `segment_from_clicks` looks at; the mask in it is that of the whole image."""
    tight = Box.around(points.foreground_voxel)
    i, j, k = (max(int(np.ceil(options.context * size)), options.margin_voxels) for size in tight.shape)
    return tight.relaxed((i, j, k), image_shape)


@dataclass(frozen=True, eq=False)
class _PlacedAtlas:
    """An atlas, and what a network corrects, in the frame of the structure that was clicked.

    Attributes:
        extremes: (3, 2, 3) positions of the extreme points.
        correction: (S, S, S) of log-odds; None without a network.
    """

    atlas: ShapeAtlas
    frame: BoxFrame
    extremes: np.ndarray
    correction: np.ndarray | None

    @classmethod
    def of(
        cls,
        atlas: ShapeAtlas,
        network: ClickNetwork | None,
        image: np.ndarray,
        points: ExtremePoints,
        affine_ras: np.ndarray,
    ) -> _PlacedAtlas:
        frame = BoxFrame.around(points.extremes_voxel, affine_ras)
        extremes = frame.extremes(points.extremes_voxel)
        if network is None:
            return cls(atlas, frame, extremes, None)
        box = context_box(points, image.shape)
        sampled = frame.sampled(image[box.slices], np.array(box.start))
        on, off = frame.positions(points.foreground_voxel), frame.positions(points.background_voxel)
        inputs, _ = network_input(sampled, extremes, atlas, on, off)
        return cls(atlas, frame, extremes, network.correction(inputs))

    def probability(self, generic: np.ndarray, grid: WorkingGrid) -> np.ndarray:
        """(X, Y, Z) on a grid, of the atlas and a generic probability (X, Y, Z) together."""
        return self.atlas.probability(generic, self.frame, self.extremes, grid)

    def correction_on(self, grid: WorkingGrid) -> np.ndarray | None:
        """(X, Y, Z) on a grid, what is added to the log-odds; None without a network."""
        return None if self.correction is None else self.frame.on_grid(self.correction, grid)


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is known of one structure, on the voxels that are worked on.

    Attributes:
        grid: those voxels.
        values: (X, Y, Z) normalised intensities.
        probability: (X, Y, Z) of a trained network.
        trust: in it, in [0, 1].
        atlas: of the structure's label.
        extremes: (3, 2, 3) int, as in `ExtremePoints`.
        foreground, background: (N, 3) and (M, 3) int clicks; background clicks outside the grid are left out.
        relaxed: the box outside of which everything is background.
    """

    grid: WorkingGrid
    values: np.ndarray
    probability: np.ndarray | None
    trust: float
    atlas: _PlacedAtlas | None
    extremes: np.ndarray
    foreground: np.ndarray
    background: np.ndarray
    relaxed: Box
    options: ClickMaskOptions

    @classmethod
    def of(
        cls,
        image: np.ndarray,
        points: ExtremePoints,
        spacing_mm: tuple[float, float, float],
        foreground_probability: np.ndarray | None,
        trust: float,
        atlas: _PlacedAtlas | None,
        options: ClickMaskOptions,
    ) -> _Problem:
        relaxed = Box.around(points.foreground_voxel).relaxed(options.margin_voxels, image.shape)
        grid = WorkingGrid.over(context_box(points, image.shape, options), spacing_mm, options.max_voxels)
        corners = np.array([relaxed.start, relaxed.stop]) - [[0], [1]]
        return cls(
            grid,
            normalised(grid.averaged(image)),
            None if foreground_probability is None else grid.averaged(foreground_probability),
            trust,
            atlas,
            grid.points(points.extremes_voxel),
            grid.points(points.foreground_voxel),
            _inside(grid.points(points.background_voxel), grid.shape),
            Box.around(grid.points(corners)),
            options,
        )

    def log_odds(self) -> np.ndarray:
        """(X, Y, Z): what shape, networks, intensities, geodesics and corrective clicks say together."""
        generic_prior = self.generic_prior()
        log_odds = self.fitted(self._prior(generic_prior))
        correction = None if self.atlas is None else self.atlas.correction_on(self.grid)
        if correction is not None:
            log_odds += correction + np.float32(self.options.corrected_bias)
        paths = self.paths(log_odds)
        if correction is None:
            generic = log_odds if self.atlas is None and self.probability is None else self.fitted(generic_prior)
            learnt = shipped().log_odds(self.features(generic_prior, generic, paths))
            region = self.relaxed.slices
            log_odds[region] += np.float32(self._net_share()) * (learnt - generic[region])
        for path in paths:
            log_odds[tuple(path.T)] = self.options.geodesic_log_odds
        return self._corrected(log_odds)

    def generic_prior(self) -> np.ndarray:
        """(X, Y, Z) log-odds: what the extreme points alone tell of any structure."""
        gauge = extreme_point_gauge(self.extremes, self.grid.shape, shrinkage=self.options.shrinkage)
        return self.options.prior_strength * (1 - gauge)

    def fitted(self, prior: np.ndarray) -> np.ndarray:
        """(X, Y, Z) log-odds of a prior and the intensities."""
        weight, iterations = self.options.intensity_weight, self.options.iterations
        return fit(self.values, prior, weight=weight, iterations=iterations)

    def paths(self, log_odds: np.ndarray) -> list[np.ndarray]:
        """The geodesics between opposite extreme points, (n, 3) int each."""
        spacing_mm = self.grid.spacing_mm
        return extreme_point_geodesics(self.values, self.extremes, spacing_mm, background_probability=expit(-log_odds))

    def features(self, prior: np.ndarray, log_odds: np.ndarray, paths: list[np.ndarray]) -> VoxelFeatures:
        """Of the voxels in the relaxed box, from the generic prior, and from what it and the intensities say."""
        return voxel_features(
            self.values,
            self.extremes,
            self.grid.spacing_mm,
            model_ratio=(log_odds - prior) / max(self.options.intensity_weight, 1e-6),
            log_odds=log_odds,
            paths=paths,
            region=self.relaxed,
        )

    def cut(self, log_odds: np.ndarray, *, only_extremes: bool = False) -> np.ndarray:
        """(X, Y, Z) bool: the graph cut that obeys all clicks, or only the extreme ones."""
        known = np.full(log_odds.shape, -np.inf, dtype=np.float32)
        known[self.relaxed.slices] = log_odds[self.relaxed.slices]
        if not only_extremes:
            known[tuple(self.background.T)] = -np.inf
        known[tuple((self.extremes.reshape(6, 3) if only_extremes else self.foreground).T)] = np.inf
        contrast = self.options.contrast * typical_step(self.values[Box.around(self.foreground).slices])
        smoothness = self.options.corrected_smoothness if self._has_click_network() else self.options.smoothness
        # A cut prefers a short border, up to none at all where no edge in the image holds it (shrinking bias:
        # Vicente, Kolmogorov and Rother, CVPR 2008). It then has to give way to what the voxels say.
        while True:
            mask = graph_cut(known, self.values, self.grid.spacing_mm, smoothness=smoothness, contrast=contrast)
            if mask.sum() >= self.options.smallest_share * (known > 0).sum() or smoothness < LEAST_SMOOTHNESS:
                return mask
            smoothness /= 2

    def without_closed_holes(self, mask: np.ndarray) -> np.ndarray:
        """The mask with holes filled, but those in which a background click stands."""
        holes, _ = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
        stay = np.append(0, holes[tuple(self.background.T)])
        return mask | ~np.isin(holes, stay)

    def _prior(self, generic: np.ndarray) -> np.ndarray:
        """(X, Y, Z) log-odds of the generic prior, the atlas and the network."""
        prior = generic if self.atlas is None else logit(self.atlas.probability(expit(generic), self.grid))
        if self.probability is None:
            return prior
        confidence = 0.5 + self.trust * (self.options.network_confidence - 0.5)
        return prior + logit(np.clip(self.probability, 1 - confidence, confidence))

    def _has_click_network(self) -> bool:
        return self.atlas is not None and self.atlas.correction is not None

    def _net_share(self) -> float:
        """Of the structure net: less, the more an atlas counts."""
        generic_share = 1.0 if self.atlas is None else 1 / (1 + self.atlas.atlas.weight)
        return self.options.net_share * generic_share**0.5

    def _corrected(self, log_odds: np.ndarray) -> np.ndarray:
        """The log-odds, replaced around the clicks that contradict the mask of the extreme points alone."""
        if len(self.foreground) == 6 and len(self.background) == 0:
            return log_odds
        mask = self.cut(log_odds, only_extremes=True)
        missed, leaked = ~mask[tuple(self.foreground.T)], mask[tuple(self.background.T)]
        log_odds = log_odds + self._shift(missed, leaked)
        clicks_and_claims = (
            (self.foreground[missed], self.background, self.options.click_log_odds),
            (self.background[leaked], self.foreground, -self.options.click_log_odds),
        )
        for clicks, opposite, says in clicks_and_claims:
            trust = click_influence(
                self.values,
                mask,
                clicks,
                opposite,
                self.grid.spacing_mm,
                reach=self.options.click_reach,
                tolerance=self.options.click_tolerance,
            )
            log_odds = (1 - trust) * log_odds + trust * says
        return log_odds

    def _shift(self, missed: np.ndarray, leaked: np.ndarray) -> np.ndarray:
        """(X, Y, Z) added to the log-odds around clicks that are missed (M,) or leaked (N,) by the mask so far."""
        corrective = ~(self.foreground[:, None] == self.extremes.reshape(6, 3)).all(axis=-1).any(axis=1)
        clicks = np.concatenate([self.foreground[corrective], self.background])
        wanted = self.options.click_shift * np.concatenate([missed[corrective], -1.0 * leaked])
        extent = np.ptp(self.extremes.reshape(6, 3), axis=0) + 1
        return click_shift(self.grid.shape, clicks, wanted, self.options.click_shift_reach * extent)


def _check(image: np.ndarray, points: ExtremePoints, foreground_probability: np.ndarray | None, trust: float) -> None:
    if not 0 <= trust <= 1:
        raise ValueError(f"trust is {trust}; expected a number in [0, 1]")
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
    """The parts of a mask of a box that hold a foreground click, without the background clicks."""
    foreground = tuple((points.foreground_voxel - box.start).T)
    mask[foreground] = True
    mask[tuple(_inside(points.background_voxel - np.array(box.start), mask.shape).T)] = False
    parts, _ = ndimage.label(mask, EVERY_NEIGHBOUR)
    return np.isin(parts, parts[foreground])


def _inside(points_voxel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return points_voxel[((points_voxel >= 0) & (points_voxel < shape)).all(axis=1)]
