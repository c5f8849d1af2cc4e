"""Sample voxels of structures with the features that the structure net sees."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.clickmask.click_mask import features_of
from lib.clicktraining.examples import Example

VOXELS = 1200
"""Maximum number of voxels per structure: at most half of them inside, at most half outside."""

CLICK_ERROR_VOXELS = 0.5
TRIES = 20

CORNER_SHARE = 0.1
"""Share of structures whose clicks are as near as possible to two opposite corners. On a large outermost slice, an
annotator may click anywhere, so clicks that lie together do not imply a rod."""


class Sample(NamedTuple):
    """Sampled voxels of one structure.

    Attributes:
        features: (N, F) float16, in the order of `FEATURES`.
        inside: (N,) bool.
        weight: (N,) float32: number of voxels that each represents, as a share of all voxels around the structure.
    """

    features: np.ndarray
    inside: np.ndarray
    weight: np.ndarray


def sample(rng: np.random.Generator, example: Example) -> Sample | None:
    """Draw a sample with simulated, inexact clicks; None if no clicks with an extent along each axis are found."""
    clicks = next((c for _ in range(TRIES) if np.ptp(c := _clicks(rng, example.mask), axis=0).all()), None)
    if clicks is None:
        return None
    points = ExtremePoints.from_clicks("structure", clicks)
    features, grid, region = features_of(example.image, points, example.spacing_mm)
    inside = (grid.averaged(example.mask) > 0.5)[region.slices].ravel()
    chosen, weight = [], []
    for side in (np.flatnonzero(inside), np.flatnonzero(~inside)):
        some = side if len(side) <= VOXELS // 2 else rng.choice(side, VOXELS // 2, replace=False)
        chosen.append(some)
        weight.append(np.full(len(some), len(side) / max(len(some), 1) / inside.size, dtype=np.float32))
    voxels = np.concatenate(chosen)
    maps = np.stack([volume.ravel()[voxels] for volume in features.maps], axis=1)
    numbers = np.broadcast_to(np.array(features.numbers), (len(voxels), len(features.numbers)))
    together = np.concatenate([maps, numbers], axis=1).astype(np.float16)
    return Sample(together, inside[voxels], np.concatenate(weight))


def _clicks(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Draw clicks (6, 3) int on the outermost slices of the structure, or near two opposite corners of its box."""
    if rng.random() > CORNER_SHARE:
        return simulated_extreme_points(mask, rng, CLICK_ERROR_VOXELS)
    voxels = np.argwhere(mask)
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    first = np.where(rng.random(3) < 0.5, low, high)
    corners = np.stack([first, low + high - first])
    clicks = []
    for axis in range(3):
        for outermost in (low[axis], high[axis]):
            face = voxels[voxels[:, axis] == outermost]
            corner = corners[int(corners[0, axis] != outermost)]
            clicks.append(face[((face - corner) ** 2).sum(axis=1).argmin()])
    return np.array(clicks)
