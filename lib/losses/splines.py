"""Quadratic B-splines, which carry values between voxels and the nodes of a coarser grid."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class SplineAxis(NamedTuple):
    """One image axis of n voxels seen through grid nodes, by quadratic B-splines.

    `node` (n,) int64 is the node nearest to each voxel and `weights` (n, 3) the voxel's weights at the node
    before it, at it and after it.
    """

    node: np.ndarray
    weights: np.ndarray

    def matrix(self, nodes: int) -> np.ndarray:
        """The weights of all voxels at all nodes, (n, nodes)."""
        matrix = np.zeros((len(self.node), nodes))
        for shift in range(3):
            matrix[np.arange(len(self.node)), self.node + shift - 1] = self.weights[:, shift]
        return matrix


def spline_weights(offset: Any, half: Any = 0.5) -> Any:
    """Quadratic B-spline weights at the nearest node and its two neighbours, for offsets in [-0.5, 0.5].

    `half` is 0.5, for compiled code in the type of the offset: a literal would turn everything into float64.
    """
    before = half * (half - offset) ** 2
    after = half * (half + offset) ** 2
    return before, half + half - before - after, after
