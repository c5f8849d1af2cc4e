"""Compute features of the voxels around a structure from six clicks and the image, comparable across scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from lib.clickmask.intensity_model import BINS, intensity_cells, smoothed_counts, typical_step
from lib.clickmask.raster_distance import raster_distance
from lib.clickmask.shape_prior import hull_and_box_gauge
from lib.geometry.boxes import Box

# As `shape_prior.BODY`, but smaller, so that thin structures differ from thick ones.
BODY = 0.15
# Standard deviation in cells, for histograms of few voxels.
CELL_SIGMA = 1.5
# Part of the mean histogram in both, and a constant per cell, so that unseen intensities are not impossible.
COMMON_SHARE, COMMON_CELL = 0.05, 0.002
# Added to a robust standard deviation of normalised intensities.
MIN_DEVIATION = 0.02
# Minimum and range of a voxel's cost; the minimum makes straight paths the shortest in a uniform region.
INTENSITY_COST, GRADIENT_COST = (0.15, 6.0), (0.1, 5.0)
# Added before a logarithm of a gauge, and of a distance in units of the box.
MIN_GAUGE, MIN_DISTANCE = 0.05, 0.02
QUANTILES, QUANTILE_VOXELS = 65, 20_000


class VoxelMaps(NamedTuple):
    """Features that vary from voxel to voxel, (X, Y, Z) float32 each.

    Distances are in units of the box: each axis runs from -1 to 1 between the outer faces of the clicked voxels.

    Attributes:
        hull, box: log of the gauge of the hull of the six points, and of their box.
        nearest, second: distance to the nearest extreme point and to the next one.
        middle: distance to the middle of the box.
        path: distance to the paths between opposite extreme points.
        intensity_distance: log of the geodesic distance to the paths, whose cost is the difference in intensity.
        gradient_rank: rank in [0, 1], among the voxels of the box, of the geodesic distance to the paths whose cost is
            the gradient.
        ring_ratio, smooth_ring_ratio: log-likelihood ratio of the intensities on the paths against those outside the
            box, and its mean around the voxel.
        all_ratio, smooth_all_ratio: the same against all intensities.
        model_ratio, smooth_model_ratio: the same of the intensity model.
        log_odds: of the shape prior and the intensity model combined.
    """

    hull: np.ndarray
    box: np.ndarray
    nearest: np.ndarray
    second: np.ndarray
    middle: np.ndarray
    path: np.ndarray
    intensity_distance: np.ndarray
    gradient_rank: np.ndarray
    ring_ratio: np.ndarray
    smooth_ring_ratio: np.ndarray
    all_ratio: np.ndarray
    smooth_all_ratio: np.ndarray
    model_ratio: np.ndarray
    smooth_model_ratio: np.ndarray
    log_odds: np.ndarray


class StructureNumbers(NamedTuple):
    """Features of the structure as a whole.

    Attributes:
        coincidence: mean distance of an extreme point to the nearest other one, in units of the box. Small if extreme
            points of two axes coincide, as at the ends of an oblique rod.
        off_centre: mean distance, along each axis, of the extreme points to the middle of their face.
        elongation: standard deviation of the extreme points along their main direction, in units of the box.
        likely_share: share of the box's voxels with positive log-odds of prior and intensity model.
        alike_share: share of the box's voxels whose intensity is likelier on the paths than outside the box.
        path_deviation: log of the robust standard deviation of the intensities on the paths.
    """

    coincidence: float
    off_centre: float
    elongation: float
    likely_share: float
    alike_share: float
    path_deviation: float


@dataclass(frozen=True, eq=False)
class VoxelFeatures:
    """Features of the voxels of one region: those that vary from voxel to voxel, and those that do not."""

    maps: VoxelMaps
    numbers: StructureNumbers


def voxel_features(
    values: np.ndarray,
    extremes: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    model_ratio: np.ndarray,
    log_odds: np.ndarray,
    paths: Sequence[np.ndarray],
    region: Box,
) -> VoxelFeatures:
    """Compute the features of the voxels in a region.

    Args:
        values: (X, Y, Z) intensities in [0, 1], of the region and its surroundings.
        extremes: (3, 2, 3) int, [axis, low / high end, ijk] in voxels of `values`.
        spacing_mm: voxel size along each axis.
        model_ratio: (X, Y, Z) log-likelihood ratio of the intensity model.
        log_odds: (X, Y, Z) of prior and intensity model.
        paths: (n, 3) int voxels each, between opposite extreme points.
        region: contains the extreme points and the paths.
    """
    start, inside = np.array(region.start), region.slices
    tight = Box.around(extremes.reshape(6, 3))
    in_region = tight.shifted(-start).slices
    frame = _BoxFrame.of(extremes - start, region.shape)
    seeds = np.zeros(region.shape, dtype=bool)
    for path in paths:
        seeds[tuple((path - start).T)] = True
    cells = intensity_cells(values)
    # Without the extreme points, which lie on the border of the structure and have an error.
    inner = np.concatenate([path[1:-1] if len(path) > 4 else path for path in paths])
    on_paths = smoothed_counts(cells[tuple(inner.T)], CELL_SIGMA)
    everywhere = smoothed_counts(cells)
    outside_box = _shares_outside(cells, tight)
    ring_ratio = _log_ratio(on_paths, outside_box)[cells[inside]]
    all_ratio = _log_ratio(on_paths, everywhere)[cells[inside]]
    path_values = values[tuple(inner.T)]
    median = np.median(path_values)
    deviation = 1.4826 * np.median(np.abs(path_values - median)) + MIN_DEVIATION

    size_mm = float(np.prod((2 * frame.half_extent) * spacing_mm) ** (1 / 3))
    unlike = np.abs(_smoothed((values[inside] - median) / deviation, spacing_mm, 0.5))
    steepness = _steepness(values[inside], spacing_mm) / typical_step(values[tight.slices])
    intensity_distance = raster_distance(_cost(unlike, INTENSITY_COST), seeds, spacing_mm) / size_mm
    gradient_distance = raster_distance(_cost(steepness, GRADIENT_COST), seeds, spacing_mm)
    hull, box = hull_and_box_gauge(extremes - start, region.shape, shrinkage=0.0, body=BODY)
    nearest, second = frame.two_nearest()
    maps = VoxelMaps(
        hull=np.log(hull + MIN_GAUGE),
        box=np.log(box + MIN_GAUGE),
        nearest=nearest,
        second=second,
        middle=frame.distance(np.zeros(3)),
        path=ndimage.distance_transform_edt(~seeds, sampling=1 / frame.half_extent).astype(np.float32),
        intensity_distance=np.log(intensity_distance + MIN_DISTANCE),
        gradient_rank=_rank(gradient_distance, gradient_distance[in_region]),
        ring_ratio=ring_ratio,
        smooth_ring_ratio=_smoothed(ring_ratio, spacing_mm, 1.0),
        all_ratio=all_ratio,
        smooth_all_ratio=_smoothed(all_ratio, spacing_mm, 1.0),
        model_ratio=model_ratio[inside],
        smooth_model_ratio=_smoothed(model_ratio[inside], spacing_mm, 1.0),
        log_odds=log_odds[inside],
    )
    numbers = StructureNumbers(
        *frame.spread(),
        likely_share=float((log_odds[tight.slices] > 0).mean()),
        alike_share=float((ring_ratio[in_region] > 0).mean()),
        path_deviation=float(np.log(deviation)),
    )
    return VoxelFeatures(maps, numbers)


@dataclass(frozen=True, eq=False)
class _BoxFrame:
    """Coordinates in units of the box.

    Attributes:
        axes: positions of the voxels along each axis.
        extremes: (6, 3) of the extreme points.
        half_extent: (3,) of the box, in voxels.
    """

    axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    extremes: np.ndarray
    half_extent: np.ndarray

    @classmethod
    def of(cls, extremes: np.ndarray, shape: tuple[int, int, int]) -> _BoxFrame:
        points = extremes.reshape(6, 3)
        low, high = points.min(axis=0) - 0.5, points.max(axis=0) + 0.5
        middle, half = (low + high) / 2, (high - low) / 2
        x, y, z = ((np.arange(n, dtype=np.float32) - m) / h for n, m, h in zip(shape, middle, half, strict=True))
        return cls((x, y, z), (points - middle) / half, half)

    def distance(self, place: np.ndarray) -> np.ndarray:
        return np.sqrt(self._squared_distance(place))

    def two_nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances (X, Y, Z) to the nearest and to the second nearest extreme point."""
        nearest = second = np.full([len(axis) for axis in self.axes], np.inf, dtype=np.float32)
        for extreme in self.extremes:
            distance = self._squared_distance(extreme)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
        return np.sqrt(nearest), np.sqrt(second)

    def spread(self) -> tuple[float, float, float]:
        """Return coincidence, distance off the centre and elongation, as in `StructureNumbers`."""
        between = np.linalg.norm(self.extremes[:, None] - self.extremes[None], axis=-1)
        np.fill_diagonal(between, np.inf)
        on_faces = np.concatenate(
            [np.delete(self.extremes[2 * axis : 2 * axis + 2], axis, axis=1) for axis in range(3)]
        )
        main = np.linalg.eigvalsh(np.cov(self.extremes.T, bias=True))[-1]
        return float(between.min(axis=1).mean()), float(np.abs(on_faces).mean()), float(np.sqrt(main))

    def _squared_distance(self, place: np.ndarray) -> np.ndarray:
        x, y, z = (((axis - p) ** 2).astype(np.float32) for axis, p in zip(self.axes, place, strict=True))
        return (x[:, None] + y)[..., None] + z


def _shares_outside(cells: np.ndarray, box: Box) -> np.ndarray:
    """Return the histogram (BINS,) of the cells outside a box, or of all cells if none is outside."""
    everywhere = np.bincount(cells.ravel(), minlength=BINS)
    outside = everywhere - np.bincount(cells[box.slices].ravel(), minlength=BINS)
    return smoothed_counts(np.arange(BINS), weights=outside if outside.any() else everywhere)


def _log_ratio(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    common = COMMON_SHARE * (inside + outside) / 2 + COMMON_CELL
    return np.log((inside + common) / (outside + common)).astype(np.float32)


def _cost(amount: np.ndarray, minimum_and_range: tuple[float, float]) -> np.ndarray:
    minimum, cost_range = minimum_and_range
    return np.float32(minimum) + np.minimum(amount, np.float32(cost_range))


def _smoothed(volume: np.ndarray, spacing_mm: tuple[float, float, float], sigma_voxels: float) -> np.ndarray:
    """Smooth by a Gaussian; its standard deviation is in units of the smallest voxel edge along each axis."""
    sigma = sigma_voxels * np.min(spacing_mm) / np.asarray(spacing_mm)
    return ndimage.gaussian_filter(volume, sigma, mode="nearest")


def _steepness(values: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Return the magnitude of the gradient (X, Y, Z), per smallest voxel edge."""
    squares = np.zeros(values.shape, dtype=np.float32)
    for axis, spacing in enumerate(np.asarray(spacing_mm) / np.min(spacing_mm)):
        if values.shape[axis] > 1:
            squares += np.gradient(values, np.float32(spacing), axis=axis) ** 2
    return np.sqrt(squares)


def _rank(volume: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return the share (X, Y, Z) of some values that are lower, to one part in 64."""
    sample = among.ravel()[:: 1 + among.size // QUANTILE_VOXELS]
    shares = np.linspace(0, 1, QUANTILES)
    levels = np.quantile(sample, shares)
    return np.interp(volume, levels, shares).astype(np.float32)
