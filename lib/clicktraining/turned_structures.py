"""Augment real structures by rotation, stretching and thick slices."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lib.annotations.simulated_clicks import largest_component
from lib.clicktraining.examples import Example, large_enough, margins, random_rotation

MAX_VOXELS = 150_000
"""Maximum size of a scan; a larger one is sampled more coarsely."""
THICK_SHARE, THICKEST = 0.4, 5.0
"""Share of scans with thicker slices, and the largest factor."""
TRIES = 10


def turned(rng: np.random.Generator, example: Example) -> Example | None:
    """Rotate and stretch a structure, sometimes onto thick slices; None if too few voxels remain."""
    spacing = np.array(example.spacing_mm)
    voxels = np.argwhere(example.mask)
    centre = voxels.mean(axis=0)
    for _ in range(TRIES):
        stretch = np.exp(rng.uniform(-0.35, 0.35, 3))
        slices = _slices(rng)
        to_source = np.diag(1 / spacing) @ _turn(rng) @ np.diag(stretch * spacing * slices)
        low, high = _extent(voxels - centre, to_source)
        shape = np.ceil(high - low).astype(int) + 2 * margins(high - low)
        coarser = max(np.prod(shape.astype(float)) / MAX_VOXELS, 1) ** (1 / 3)
        if coarser > 1:
            to_source = to_source * coarser
            low, high = _extent(voxels - centre, to_source)
            shape = np.ceil(high - low).astype(int) + 2 * margins(high - low)
        offset = centre + to_source @ (low - margins(high - low))
        mask = _sampled(example.mask.astype(np.float32), to_source, offset, shape, "constant") > 0.5
        if mask.any() and large_enough(component := largest_component(mask)):
            x, y, z = (float(s) for s in spacing * slices)
            return Example(_sampled(example.image, to_source, offset, shape, "nearest"), component, (x, y, z))
    return None


def _slices(rng: np.random.Generator) -> np.ndarray:
    """Draw the factors (3,) by which voxels grow; at most one is not 1."""
    slices = np.ones(3)
    if rng.random() < THICK_SHARE:
        slices[rng.integers(3)] = np.exp(rng.uniform(0, np.log(THICKEST)))
    return slices


def _turn(rng: np.random.Generator) -> np.ndarray:
    """Draw an orthogonal matrix (3, 3): a rotation by about 20 degrees, any rotation, or a permutation of axes."""
    kind = rng.choice(3, p=[0.5, 0.3, 0.2])
    if kind == 0:
        return Rotation.from_rotvec(rng.normal(0, 0.35, 3)).as_matrix()
    return random_rotation(rng) if kind == 1 else np.eye(3)[rng.permutation(3)]


def _extent(offsets: np.ndarray, to_source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    placed = offsets @ np.linalg.inv(to_source).T
    return placed.min(axis=0), placed.max(axis=0)


def _sampled(volume: np.ndarray, to_source: np.ndarray, offset: np.ndarray, shape: np.ndarray, mode: str) -> np.ndarray:
    sampled: np.ndarray = ndimage.affine_transform(
        volume, to_source, offset=offset, output_shape=tuple(shape), order=1, mode=mode
    )
    return sampled
