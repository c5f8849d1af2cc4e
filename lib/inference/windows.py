"""Place and weight the sliding windows of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lib.geometry.boxes import Box

OVERLAP = 0.25
"""Minimum overlap of neighbouring windows, as a share of a window."""

MARGIN = 1 / 12
"""Margin that windows cover around the requested box, as a share of a window. Larger margins do not improve the Dice
enough for the time that they take."""

SIGMA = 0.125
"""Standard deviation of a window's Gaussian weights, as a share of its size."""


@dataclass(frozen=True)
class WindowGrid:
    """Windows at all combinations of positions along each axis.

    Attributes:
        starts: first voxels of the windows along each axis, in ascending order; negative if the image is smaller than a
            window.
        size: voxels of a window (X, Y, Z).
    """

    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    size: tuple[int, int, int]

    @classmethod
    def over(cls, box: Box, image_shape: Sequence[int], size: tuple[int, int, int]) -> WindowGrid:
        """Place the minimum number of windows that cover a box and `MARGIN` around it, inside the image.

        If as many windows cover the whole length of the image, they are placed over the whole length.
        """
        i, j, k = (
            _starts(first, last, length, window)
            for first, last, length, window in zip(box.start, box.stop, image_shape, size, strict=True)
        )
        return cls((i, j, k), size)

    @property
    def box(self) -> Box:
        """Box that the windows cover together; it may extend beyond the image."""
        first, last = np.array([(starts[0], starts[-1]) for starts in self.starts]).T
        return Box(tuple(first.tolist()), tuple((last + self.size).tolist()))

    @cached_property
    def weights(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Weights (n,) float32 of a window along each axis; the weight of a voxel is their product."""
        i, j, k = (_gaussian(n) for n in self.size)
        return i, j, k

    def total_weight(self, axis: int) -> torch.Tensor:
        """Return the sum (n,) float32 of the weights of all windows along an axis of `box`."""
        starts, weight = self.starts[axis], self.weights[axis]
        total = torch.zeros(starts[-1] - starts[0] + len(weight))
        for start in starts:
            total[start - starts[0] :][: len(weight)] += weight
        return total


def _starts(first: int, last: int, length: int, window: int) -> tuple[int, ...]:
    """Return the first voxels of windows that cover the voxels [first, last) of an axis of `length` voxels."""
    if length <= window:
        return (-((window - length) // 2),)
    margin = round(window * MARGIN)
    low, high = max(0, first - margin), min(length, last + margin)
    if high - low <= window:
        return (min(max(0, (low + high - window) // 2), length - window),)
    around_box, over_image = _evenly(low, high, window), _evenly(0, length, window)
    return over_image if len(over_image) <= len(around_box) else around_box


def _evenly(low: int, high: int, window: int) -> tuple[int, ...]:
    steps = math.ceil((high - low - window) / (window * (1 - OVERLAP)))
    return tuple(np.rint(np.linspace(low, high - window, 1 + steps)).astype(int).tolist())


def _gaussian(size: int) -> torch.Tensor:
    return torch.exp(-0.5 * ((torch.arange(size) - (size - 1) / 2) / (SIGMA * size)) ** 2)
