"""Draw random structures in random scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lib.annotations.simulated_clicks import largest_component
from lib.clicktraining.examples import Example, large_enough, margins, random_rotation
from lib.clicktraining.random_bodies import Body, random_body

MAX_VOXELS = 60_000
"""Maximum size of a scan."""

CONSTANT_SHARE, HIDDEN_SHARE = 0.02, 0.05
"""Share of scans of one intensity, and of scans in which the structure is invisible."""


def random_structure(rng: np.random.Generator) -> Example:
    """Draw a body in any direction, on voxels of any shape; sometimes only a part of the body is the structure."""
    while True:
        scene = _Scene.of(rng)
        if scene is not None and large_enough(scene.mask):
            return Example(_picture(rng, scene), scene.mask, scene.spacing_mm)


@dataclass(frozen=True, eq=False)
class _Scene:
    """Body on a grid.

    Attributes:
        body: the body in the scan.
        points: (X, Y, Z, 3) of the voxels, in the frame of the body.
        whole: (X, Y, Z) bool, the body.
        mask: (X, Y, Z) bool, the structure: the body or a part of it.
        spacing_mm: voxel size along each axis; the finest is 1.
    """

    body: Body
    points: np.ndarray
    whole: np.ndarray
    mask: np.ndarray
    spacing_mm: tuple[float, float, float]

    @classmethod
    def of(cls, rng: np.random.Generator) -> _Scene | None:
        """Draw a scene; None if the body is empty, or has too few or too many voxels."""
        body = random_body(rng)
        to_body = _direction(rng)
        spacing = np.ones(3)
        if rng.random() < 0.5:
            spacing[rng.integers(3)] = np.exp(rng.uniform(0, 1.6))
        tried = rng.uniform(-1.2, 1.2, (4000, 3))
        inside = tried[body(tried)] @ np.linalg.inv(to_body).T
        if len(inside) < 4:
            return None
        low, high = inside.min(axis=0), inside.max(axis=0)
        voxel = np.max(high - low) / np.exp(rng.uniform(np.log(8), np.log(40))) * spacing
        extent = np.ceil(1.15 * (high - low) / voxel + 3).astype(int)
        shape = extent + 2 * margins(extent)
        if np.prod(shape) > MAX_VOXELS:
            return None
        axes = [(np.arange(n) - (n - 1) / 2) * v + m for n, v, m in zip(shape, voxel, (low + high) / 2, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) @ to_body.T
        whole = _on(points, body)
        if not whole.any():
            return None
        whole = largest_component(whole)
        mask = _part(rng, whole) if rng.random() < 0.25 else whole
        x, y, z = (float(s) for s in spacing)
        return cls(body, points, whole, mask, (x, y, z))


def _direction(rng: np.random.Generator) -> np.ndarray:
    """Draw a matrix (3, 3) from the grid's directions to the body's: any rotation or a permutation, stretched."""
    stretch = np.exp(rng.uniform(-0.3, 0.3, 3))
    return np.diag(stretch)[rng.permutation(3)] if rng.random() < 0.3 else random_rotation(rng) * stretch


def _on(points: np.ndarray, body: Body) -> np.ndarray:
    return body(points.reshape(-1, 3)).reshape(points.shape[:-1])


def _part(rng: np.random.Generator, whole: np.ndarray) -> np.ndarray:
    """Return the part of a structure beyond a random plane, such as the body of a vertebra."""
    normal = rng.normal(size=3) if rng.random() < 0.5 else np.eye(3)[rng.integers(3)]
    voxels = np.argwhere(whole)
    along = voxels @ normal
    part = np.zeros_like(whole)
    part[tuple(voxels[along > np.quantile(along, rng.uniform(0.25, 0.6))].T)] = True
    return largest_component(part) if part.any() else whole


def _picture(rng: np.random.Generator, scene: _Scene) -> np.ndarray:
    """Draw an image (X, Y, Z) float32: tissues of several intensities, neighbours, the structure, blur and noise.

    The contrast of the structure is of either sign, high or low; the structure may have a core, a wall, a texture and
    neighbours of its own intensity. It is sometimes invisible, so that the net learns to rely on the clicks alone.
    """
    if rng.random() < CONSTANT_SHARE:
        return np.zeros(scene.mask.shape, dtype=np.float32)
    mask = scene.mask if rng.random() > HIDDEN_SHARE else np.zeros_like(scene.mask)
    shape = mask.shape
    spacing = np.array(scene.spacing_mm)
    size = float((np.ptp(np.argwhere(scene.mask), axis=0) + 1).max())

    def clouds(sigma: float) -> np.ndarray:
        noise = ndimage.gaussian_filter(rng.normal(size=shape), sigma / spacing)
        return (noise - noise.mean()) / (noise.std() + 1e-9)

    image = _tissues(rng, clouds(size * rng.uniform(0.08, 0.3)))
    around = image[ndimage.binary_dilation(scene.mask, iterations=2) & ~scene.mask].mean()
    contrast = np.exp(rng.uniform(np.log(0.12), np.log(3))) * rng.choice([-1, 1])
    inside = around + contrast
    for _ in range(rng.integers(0, 5)):
        body = random_body(rng) if rng.random() < 0.6 else scene.body
        place = scene.points[tuple(rng.integers(0, shape))]
        image[_on((scene.points - place) @ random_rotation(rng), body)] = inside + (rng.random() > 0.45) * rng.normal()
    if rng.random() < 0.4:  # voxels next to the structure have the intensity of the surroundings
        image[ndimage.binary_dilation(mask) & ~mask] = around
    image[mask] = inside
    if rng.random() < 0.7 and mask.any():
        image[scene.whole & ~mask] = inside
    if rng.random() < 0.2 and mask.any():  # a wall around the intensity of the surroundings
        walled = scene.whole if rng.random() < 0.6 else mask
        depth = ndimage.distance_transform_edt(walled, sampling=spacing)
        image[walled] = around + rng.normal(0, 0.15)
        image[walled & (depth <= rng.uniform(1, 2.5))] = inside
    if rng.random() < 0.25 and mask.any():  # a core
        depth = ndimage.distance_transform_edt(mask, sampling=spacing)
        image[depth > depth.max() * rng.uniform(0.3, 0.8)] += rng.normal(0, 0.8 * abs(contrast))
    if rng.random() < 0.5:
        image[mask] += (clouds(0.08 * size) * rng.uniform(0.1, 0.6) * abs(contrast))[mask]
    if rng.random() < 0.5:  # a bias field
        image += clouds(0.5 * size) * rng.uniform(0.1, 0.5)
    image = ndimage.gaussian_filter(image, rng.uniform(0.2, 0.9) / np.minimum(spacing, 2))
    image += clouds(rng.uniform(0.4, 0.9) if rng.random() < 0.5 else 0.0) * np.exp(
        rng.uniform(np.log(0.03), np.log(0.6))
    )
    if rng.random() < 0.3:
        image = np.exp(image * rng.uniform(0.3, 0.8))
    return image.astype(np.float32)


def _tissues(rng: np.random.Generator, clouds: np.ndarray) -> np.ndarray:
    """Draw one to four intensities for the quantiles of smooth noise (X, Y, Z)."""
    count = rng.integers(1, 5)
    levels = rng.normal(size=count) * rng.uniform(0.3, 1.5)
    borders = np.quantile(clouds, np.linspace(0, 1, count + 1)[1:-1])
    return levels[np.searchsorted(borders, clouds)]
