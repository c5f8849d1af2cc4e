"""Filter volumes by a Gaussian in space and intensity, on a bilateral grid."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.losses.interpolation import Interpolation, SplineAxis, quadratic_weights
from lib.losses.interpolation_kernels import cubic_weights

BINS_PER_NODE = 1.8
"""Intensity bins per sigma_beta over grid nodes per sigma_alpha. Bins are closer than nodes because only the pairs
across an edge, 3 sigma_beta apart, contribute to R of a mask along it: the tail in intensity needs 1 % accuracy."""

REACH_SIGMAS = 4.0
"""Distance, in sigma_beta, beyond which the blur between bins is cut off; the Gaussian there is exp(-8) = 0.0003."""

TAIL_FLOOR = 0.01
"""The blur between bins is fitted for a small error relative to K + TAIL_FLOOR, from 1 down to about 3 sigma_beta."""

SPLINE_REACH = 2
"""Bins that a voxel reaches above its own; below, it reaches one."""

MIN_NODES = 8
"""Minimum number of nodes along an axis of at least as many voxels. On an axis that is short in sigma_alpha, half of
the voxels are near the border, where splines fit less well than inside."""

MAX_GRID_VALUES = 2**22
"""Values of one grid, 16 MB in float32, so that most of it stays in the cache; three grids exist at a time. Images
that need more are filtered in chunks of bins."""

MIN_CHUNK_BINS = 16
"""Minimum number of bins of a chunk. Every chunk also holds some 22 bins of its neighbours, which are computed
twice."""

BLUR_BLOCK_BINS = 32
"""Bins blurred by one matrix product. A larger matrix would mostly be zeros; with a smaller one, more bins are read
twice."""

MAX_BINS = 20_000
"""Maximum number of occupied bins of an image: 500 standard deviations at the default scales. An image that needs more
is not z-scored, and is refused because filtering it would take minutes."""

MAX_RAW_BINS = 2**24
"""Maximum number of bins between the lowest and the highest intensity, including empty ones: the length of a table of
64 MB, and the largest integer that float32 represents exactly."""


class SpatialAxis(NamedTuple):
    """Interpolation between the n voxels of an image axis and m grid nodes; `blur` (m, m) is the Gaussian of nodes."""

    spline: SplineAxis
    blur: np.ndarray


@lru_cache(maxsize=64)
def spatial_axis(voxels: int, sigma_voxels: float, nodes_per_sigma: float) -> SpatialAxis:
    """Place nodes evenly over the axis and fit the blur between them.

    With A the interpolation matrix (n, m) and K the exact Gaussian (n, n), the blur is A+ K A+^T: the
    interpolated filter A blur A^T is then the best approximation of K in the Frobenius norm, exact in its sum,
    on axes of any length. A sampled Gaussian is inaccurate near the borders and on axes shorter than sigma.
    """
    nodes = max(math.ceil((voxels - 1) * nodes_per_sigma / sigma_voxels) + 2, min(voxels, MIN_NODES), 3)
    # The outermost voxels lie midway between the two outermost nodes, which have equal weights there.
    position = 0.5 + np.arange(voxels) * ((nodes - 2) / max(voxels - 1, 1))
    node = np.clip(np.rint(position).astype(np.int64), 1, nodes - 2)
    spline = SplineAxis(node, quadratic_weights(position - node))

    distance = np.arange(voxels)[:, None] - np.arange(voxels)
    inverse = np.linalg.pinv(spline.matrix(nodes))
    blur = inverse @ np.exp(-0.5 * (distance / sigma_voxels) ** 2) @ inverse.T
    return SpatialAxis(spline, blur)


class IntensityAxis(NamedTuple):
    """Intensities of an image (X, Y, Z) as bins.

    Attributes:
        bins: (X, Y, Z) int32, bin at or below each voxel.
        offset: (X, Y, Z) in [0, 1], position of the voxel between its bin and the next.
        scale: (X, Y, Z), factor with which two equal intensities have a weight of exactly 1.
        taps: blur between bins 0, 1, ... apart.
        bin_count: number of bins.
    """

    bins: Tensor
    offset: Tensor
    scale: Tensor
    taps: np.ndarray
    bin_count: int

    @property
    def reach(self) -> int:
        """Maximum distance, in bins, over which the blur acts."""
        return len(self.taps) - 1


def intensity_axis(image: Tensor, sigma: float, bins_per_sigma: float) -> IntensityAxis:
    """Bin the intensities of an image (X, Y, Z); only the occupied part of their range costs bins.

    Values reach the four bins around them through cubic B-splines. `scale` corrects for the position of a value
    between two bins: images with few levels are filtered as accurately as smooth ones.

    Raises:
        ValueError: an intensity is not finite, or the image needs more than `MAX_BINS` bins.
    """
    low, high = (float(bound) for bound in image.aminmax())
    if not math.isfinite(high - low):
        raise ValueError(f"image intensities span [{low}, {high}]; expected finite numbers: replace NaN and inf.")
    bin_width = sigma / bins_per_sigma
    taps = intensity_taps(bins_per_sigma)
    raw_count = (high - low) / bin_width + 1
    if raw_count < MAX_RAW_BINS:
        offset = (image - low).div_(bin_width)
        raw = offset.floor()
        offset.sub_(raw)
        bins, count = _without_gaps(raw.long(), longest_gap=len(taps) + SPLINE_REACH + 1)
    if raw_count >= MAX_RAW_BINS or count > MAX_BINS:
        raise ValueError(
            f"image intensities span [{low:g}, {high:g}], too many times sigma_beta = {sigma:g}; expected an image "
            "z-scored over the scan: normalise it, or raise sigma_beta."
        )
    return IntensityAxis(bins, offset, _unit_scale(offset, taps), taps, count)


@lru_cache(maxsize=16)
def intensity_taps(bins_per_sigma: float) -> np.ndarray:
    """Fit the blur between bins 0, 1, ... apart to the Gaussian, for values anywhere between bins."""
    taps = math.ceil(REACH_SIGMAS * bins_per_sigma) + 1
    value = np.repeat(np.linspace(0, 1, 24, endpoint=False), 12 * taps)
    distance = np.tile(np.linspace(0, REACH_SIGMAS * bins_per_sigma, 12 * taps), 24)
    weight_of_taps = _weight_of_taps(value, value + distance, taps)
    gaussian = np.exp(-0.5 * (distance / bins_per_sigma) ** 2)
    importance = 1 / (gaussian + TAIL_FLOOR)
    return np.linalg.lstsq(weight_of_taps * importance[:, None], gaussian * importance, rcond=None)[0]


def _weight_of_taps(a: np.ndarray, b: np.ndarray, taps: int) -> np.ndarray:
    """Return the contribution (n, taps) of each tap to the weight between values a (n,) and b (n,), in bins."""
    weight_of_taps = np.zeros((len(a), taps))
    bin_a, bin_b = np.floor(a).astype(np.int64), np.floor(b).astype(np.int64)
    for shift_a, weight_a in enumerate(cubic_weights(a - bin_a)):
        for shift_b, weight_b in enumerate(cubic_weights(b - bin_b)):
            lag = np.abs(bin_a + shift_a - bin_b - shift_b)
            seen = np.flatnonzero(lag < taps)
            weight_of_taps[seen, lag[seen]] += (weight_a * weight_b)[seen]
    return weight_of_taps


def _unit_scale(offset: Tensor, taps: np.ndarray) -> Tensor:
    """Return 1 / sqrt(w), with w the weight between a value and itself, through its splines and the blur.

    w is a polynomial of degree 6 in the offset, symmetric about the middle of two bins.
    """
    sample = np.linspace(0, 1, 9)
    self_weight = _weight_of_taps(sample, sample, len(taps)) @ taps
    square = (offset - 0.5).square_()
    weight = torch.zeros_like(square)
    for coefficient in np.polyfit((sample - 0.5) ** 2, self_weight, 3):
        weight.mul_(square).add_(float(coefficient))
    return weight.rsqrt_()


def _without_gaps(raw: Tensor, longest_gap: int) -> tuple[Tensor, int]:
    """Renumber bins so that runs of empty bins are only as long as needed to separate both sides.

    An outlier far from all other voxels then needs a few bins, not the whole distance.
    """
    occupied = torch.bincount(raw.flatten()).nonzero().flatten()
    compact = torch.zeros_like(occupied)
    torch.cumsum(occupied.diff().clamp_(max=longest_gap), dim=0, out=compact[1:])
    table = torch.zeros(int(occupied[-1]) + 1, dtype=torch.int32, device=raw.device)
    table[occupied] = compact.int()
    return table[raw], int(compact[-1]) + 1


class BilateralGrid:
    """Filter K_kl = exp(-d(k, l)^2 / (2 sigma_alpha^2) - (X_k - X_l)^2 / (2 sigma_beta^2)) of volumes.

    The volume is splatted on a grid of (x, y, z, intensity), blurred there along each axis, and sliced with
    the same weights, so the filter is symmetric. The fit of the blur leaves ripples of about 1 % of K around zero,
    so that a filtered volume may be slightly negative where it should be 0. Source: Chen, Paris and Durand,
    Real-time edge-aware image processing with the bilateral grid, ACM TOG 2007.

    Wide intensity ranges are filtered in chunks of bins, which bounds the memory for any range.

    Args:
        image: (X, Y, Z) intensities, float32 or float64; the filter has the same dtype.
        sigma_voxels: spatial scale along X, Y, Z in voxels.
        sigma_intensity: intensity scale in units of the image.
        nodes_per_sigma: grid nodes per spatial scale, at least 1.
    """

    def __init__(
        self,
        image: Tensor,
        sigma_voxels: tuple[float, ...],
        sigma_intensity: float,
        nodes_per_sigma: float,
    ) -> None:
        self.axes = [
            spatial_axis(size, sigma, nodes_per_sigma) for size, sigma in zip(image.shape, sigma_voxels, strict=True)
        ]
        self.intensity = intensity_axis(image, sigma_intensity, BINS_PER_NODE * nodes_per_sigma)
        self.blurs = [torch.as_tensor(axis.blur).to(image) for axis in self.axes]
        self.interpolation = Interpolation(
            [axis.spline for axis in self.axes],
            self.intensity.bins,
            self.intensity.offset,
        )

    def filter(self, volumes: Tensor) -> Tensor:
        """Return K applied to each volume (C, X, Y, Z), in the same shape."""
        volumes = volumes * self.intensity.scale
        filtered = volumes.new_empty(volumes.shape)
        values_per_bin = len(volumes) * math.prod(len(blur) for blur in self.blurs)
        chunk = max(MAX_GRID_VALUES // values_per_bin, MIN_CHUNK_BINS)
        for first in range(0, self.intensity.bin_count, chunk):
            self._filter_chunk(volumes, filtered, first, min(first + chunk, self.intensity.bin_count))
        return filtered.mul_(self.intensity.scale)

    def _filter_chunk(self, volumes: Tensor, filtered: Tensor, first: int, last: int) -> None:
        """Fill in the filtered values of the voxels whose bin is in [first, last)."""
        # Slicing reads SPLINE_REACH bins around that of a voxel, and blurring `reach` more. The spare bins at both
        # ends are dropped: they miss the contributions of voxels beyond the grid.
        lowest = first - 1
        width = last + SPLINE_REACH - lowest
        spare = SPLINE_REACH + 1
        margin = self.intensity.reach + spare
        grid = volumes.new_zeros(*(len(blur) for blur in self.blurs), len(volumes), width + 2 * margin)
        self.interpolation.splat(volumes, grid, first_bin=lowest - margin)
        grid = self._blurred_in_space(self._blurred_in_intensity(grid[..., spare:-spare]))
        self.interpolation.slice(grid, filtered, first_bin=lowest, bins=(first, last))

    def _blurred_in_intensity(self, grid: Tensor) -> Tensor:
        """Blur a grid (Gx, Gy, Gz, C, W + 2 reach) along its bins; return the W bins that have all neighbours."""
        surplus = 2 * self.intensity.reach
        blurred = grid.new_empty(*grid.shape[:-1], grid.shape[-1] - surplus)
        band = _banded(self.intensity.taps, BLUR_BLOCK_BINS).to(grid)
        for first in range(0, blurred.shape[-1], BLUR_BLOCK_BINS):
            block = blurred[..., first : first + BLUR_BLOCK_BINS]
            width = block.shape[-1]
            block.copy_(grid[..., first : first + width + surplus] @ band[: width + surplus, :width])
        return blurred

    def _blurred_in_space(self, grid: Tensor) -> Tensor:
        """Blur a grid (Gx, Gy, Gz, C, W) along its first three axes; the grid is overwritten."""
        spare = torch.empty_like(grid)
        for axis, blur in enumerate(self.blurs):
            lines = (math.prod(grid.shape[:axis]), grid.shape[axis], -1)
            torch.matmul(blur, grid.view(lines), out=spare.view(lines))
            grid, spare = spare, grid
        return grid


def _banded(taps: np.ndarray, width: int) -> Tensor:
    """Return the matrix (width + 2 reach, width) that blurs `width` bins from these and their neighbours."""
    reach = len(taps) - 1
    lag = np.abs(np.arange(width + 2 * reach)[:, None] - np.arange(width) - reach)
    return torch.as_tensor(np.where(lag <= reach, taps[np.minimum(lag, reach)], 0.0))
