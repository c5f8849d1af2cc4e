"""Combine shape, intensities, networks and clicks into log-odds, and cut the mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.click_influence import click_influence, click_shift
from lib.clickmask.click_mask_options import ClickMaskOptions
from lib.clickmask.context_box import context_box
from lib.clickmask.graph_cut import graph_cut
from lib.clickmask.intensity_model import fit, normalised, typical_step
from lib.clickmask.placed_atlas import PlacedAtlas
from lib.clickmask.shape_prior import extreme_point_gauge
from lib.clickmask.structure_net import shipped
from lib.clickmask.voxel_features import VoxelFeatures, voxel_features
from lib.clickmask.working_grid import WorkingGrid
from lib.geometry.boxes import Box
from lib.supervision.geodesics import extreme_point_geodesics

MIN_SMOOTHNESS = 0.1


@dataclass(frozen=True, eq=False)
class StructureProblem:
    """Evidence for one structure, on the voxels of a working grid.

    Attributes:
        grid: the working grid.
        values: (X, Y, Z) normalised intensities.
        probability: (X, Y, Z) of a trained network.
        prior_weight: of that network, in [0, 1].
        atlas: of the structure's label.
        extremes: (3, 2, 3) int, as in `ExtremePoints`.
        foreground, background: (N, 3) and (M, 3) int clicks; background clicks outside the grid are left out.
        relaxed: the box outside of which everything is background.
    """

    grid: WorkingGrid
    values: np.ndarray
    probability: np.ndarray | None
    prior_weight: float
    atlas: PlacedAtlas | None
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
        prior_weight: float,
        atlas: PlacedAtlas | None,
        options: ClickMaskOptions,
    ) -> StructureProblem:
        relaxed = Box.around(points.foreground_voxel).relaxed(options.margin_voxels, image.shape)
        grid = WorkingGrid.over(context_box(points, image.shape, options), spacing_mm, options.max_voxels)
        corners = np.array([relaxed.start, relaxed.stop]) - [[0], [1]]
        return cls(
            grid,
            normalised(grid.averaged(image)),
            None if foreground_probability is None else grid.averaged(foreground_probability),
            prior_weight,
            atlas,
            grid.points(points.extremes_voxel),
            grid.points(points.foreground_voxel),
            inside(grid.points(points.background_voxel), grid.shape),
            Box.around(grid.points(corners)),
            options,
        )

    def log_odds(self) -> np.ndarray:
        """Combine shape, networks, intensities, geodesics and corrective clicks into log-odds (X, Y, Z)."""
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
        """Return the log-odds (X, Y, Z) of the shape prior of the extreme points alone."""
        gauge = extreme_point_gauge(self.extremes, self.grid.shape, shrinkage=self.options.shrinkage)
        return self.options.prior_strength * (1 - gauge)

    def fitted(self, prior: np.ndarray) -> np.ndarray:
        """Return the log-odds (X, Y, Z) of a prior and the intensities."""
        weight, iterations = self.options.intensity_weight, self.options.iterations
        return fit(self.values, prior, weight=weight, iterations=iterations)

    def paths(self, log_odds: np.ndarray) -> list[np.ndarray]:
        """Return the geodesics between opposite extreme points, (n, 3) int each."""
        spacing_mm = self.grid.spacing_mm
        return extreme_point_geodesics(self.values, self.extremes, spacing_mm, background_probability=expit(-log_odds))

    def features(self, prior: np.ndarray, log_odds: np.ndarray, paths: list[np.ndarray]) -> VoxelFeatures:
        """Compute the features in the relaxed box from the generic prior and its log-odds with the intensities."""
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
        """Return the graph cut (X, Y, Z) bool constrained by all clicks, or by the extreme points only."""
        known = np.full(log_odds.shape, -np.inf, dtype=np.float32)
        known[self.relaxed.slices] = log_odds[self.relaxed.slices]
        if not only_extremes:
            known[tuple(self.background.T)] = -np.inf
        known[tuple((self.extremes.reshape(6, 3) if only_extremes else self.foreground).T)] = np.inf
        contrast = self.options.contrast * typical_step(self.values[Box.around(self.foreground).slices])
        smoothness = self.options.corrected_smoothness if self._has_click_network() else self.options.smoothness
        # A cut prefers a short border (shrinking bias: Vicente, Kolmogorov and Rother, CVPR 2008), so a mask without
        # strong edges may collapse. The smoothness is then lowered.
        while True:
            mask = graph_cut(known, self.values, self.grid.spacing_mm, smoothness=smoothness, contrast=contrast)
            if mask.sum() >= self.options.smallest_share * (known > 0).sum() or smoothness < MIN_SMOOTHNESS:
                return mask
            smoothness /= 2

    def without_closed_holes(self, mask: np.ndarray) -> np.ndarray:
        """Fill the holes of a mask, except those with a background click."""
        holes, _ = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
        stay = np.append(0, holes[tuple(self.background.T)])
        return mask | ~np.isin(holes, stay)

    def _prior(self, generic: np.ndarray) -> np.ndarray:
        """Return the log-odds (X, Y, Z) of the generic prior, the atlas and the network."""
        prior = generic if self.atlas is None else logit(self.atlas.probability(expit(generic), self.grid))
        if self.probability is None:
            return prior
        confidence = 0.5 + self.prior_weight * (self.options.network_confidence - 0.5)
        return prior + logit(np.clip(self.probability, 1 - confidence, confidence))

    def _has_click_network(self) -> bool:
        return self.atlas is not None and self.atlas.correction is not None

    def _net_share(self) -> float:
        """Return the share of the structure net, which falls with the weight of an atlas."""
        generic_share = 1.0 if self.atlas is None else 1 / (1 + self.atlas.atlas.weight)
        return self.options.net_share * generic_share**0.5

    def _corrected(self, log_odds: np.ndarray) -> np.ndarray:
        """Replace the log-odds around the clicks that contradict the mask of the extreme points alone."""
        if len(self.foreground) == 6 and len(self.background) == 0:
            return log_odds
        mask = self.cut(log_odds, only_extremes=True)
        missed, leaked = ~mask[tuple(self.foreground.T)], mask[tuple(self.background.T)]
        log_odds = log_odds + self._shift(missed, leaked)
        corrections = (
            (self.foreground[missed], self.background, self.options.click_log_odds),
            (self.background[leaked], self.foreground, -self.options.click_log_odds),
        )
        for clicks, opposite, target in corrections:
            influence = click_influence(
                self.values,
                mask,
                clicks,
                opposite,
                self.grid.spacing_mm,
                reach=self.options.click_reach,
                tolerance=self.options.click_tolerance,
            )
            log_odds = (1 - influence) * log_odds + influence * target
        return log_odds

    def _shift(self, missed: np.ndarray, leaked: np.ndarray) -> np.ndarray:
        """Return the shift (X, Y, Z) of the log-odds around clicks, from the errors of the mask at these clicks.

        Args:
            missed: (N,) bool, foreground clicks outside the mask.
            leaked: (M,) bool, background clicks inside it.
        """
        corrective = ~(self.foreground[:, None] == self.extremes.reshape(6, 3)).all(axis=-1).any(axis=1)
        clicks = np.concatenate([self.foreground[corrective], self.background])
        shifts = self.options.click_shift * np.concatenate([missed[corrective], -1.0 * leaked])
        extent = np.ptp(self.extremes.reshape(6, 3), axis=0) + 1
        return click_shift(self.grid.shape, clicks, shifts, self.options.click_shift_reach * extent)


def inside(points_voxel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return points_voxel[((points_voxel >= 0) & (points_voxel < shape)).all(axis=1)]
