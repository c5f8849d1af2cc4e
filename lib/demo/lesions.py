"""Lesions and bright structures that are none, drawn into a field of world coordinates."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.special import expit

# Intensities on the template's scale, on which white matter is about 0.85.
RIM, CORE, VESSEL = 1.08, 0.92, 1.05
RIM_WIDTH_MM = 1.2
BORDER_WIDTH_MM = 0.5


def lesion_depth_mm(
    points_mm: np.ndarray, spacing_mm: np.ndarray, centre_mm: np.ndarray, radius_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """Signed depth below the surface of a lobulated lesion, one path-connected component.

    A lesion is a union of balls, each grown from the one before it, with a rough surface.

    Args:
        points_mm: (X, Y, Z, 3) coordinates of the voxels.
        spacing_mm: (3,) of the grid.

    Returns:
        (X, Y, Z) float32 mm, positive inside.
    """
    centre, ball_mm = centre_mm, 0.75 * radius_mm
    depth = ball_mm - np.linalg.norm(points_mm - centre, axis=-1)
    for _ in range(rng.integers(2, 5)):
        direction = rng.normal(size=3)
        grown = centre_mm + direction / np.linalg.norm(direction) * ball_mm * rng.uniform(0.8, 1.1)
        depth = _smooth_union(depth, ball_mm * rng.uniform(0.5, 0.8) - np.linalg.norm(points_mm - grown, axis=-1))
    depth = depth + 1.0 * smooth_noise(depth.shape, 2.5 / spacing_mm, rng)
    return np.where(_component_at_deepest(depth > 0, depth), np.abs(depth), -np.abs(depth)).astype(np.float32)


def _smooth_union(a: np.ndarray, b: np.ndarray, width_mm: float = 1.5) -> np.ndarray:
    return width_mm * np.logaddexp(a / width_mm, b / width_mm)


def _component_at_deepest(mask: np.ndarray, depth: np.ndarray) -> np.ndarray:
    components, _ = ndimage.label(mask)
    return components == components[np.unravel_index(depth.argmax(), depth.shape)]


def smooth_noise(shape: tuple[int, ...], sigma_voxels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of mean 0 and deviation 1, correlated over `sigma_voxels`."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma_voxels)
    return (noise - noise.mean()) / noise.std()


def draw_lesion(
    anatomy: np.ndarray, depth_mm: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The lesion over the anatomy: an enhancing rim, a mottled core, and a border that blends in."""
    rim = np.exp(-((np.maximum(depth_mm, 0) / RIM_WIDTH_MM) ** 2))
    tissue = CORE + (RIM - CORE) * rim + 0.08 * smooth_noise(anatomy.shape, 1.0 / spacing_mm, rng)
    weight = expit(4 * depth_mm / BORDER_WIDTH_MM)
    return anatomy * (1 - weight) + tissue * weight


def draw_distractors(
    anatomy: np.ndarray,
    affine: np.ndarray,
    lesion_depth: np.ndarray,
    rng: np.random.Generator,
    vessels: int = 5,
    blobs: int = 8,
) -> np.ndarray:
    """Vessels and small blobs as bright as a lesion; some touch it, none is part of it."""
    depth_mm = np.full(anatomy.shape, -10.0, dtype=np.float32)

    def anywhere() -> np.ndarray:
        return nib.affines.apply_affine(affine, rng.uniform(0, anatomy.shape))

    for _ in range(vessels):
        radius_mm = rng.uniform(0.8, 1.5)
        for point_mm in _winding_course_mm(anywhere(), rng):
            _add_ball(depth_mm, affine, point_mm, radius_mm)
    for _ in range(blobs):
        _add_ball(depth_mm, affine, anywhere(), rng.uniform(1.2, 2.2))
    weight = expit(4 * np.minimum(depth_mm, -lesion_depth) / BORDER_WIDTH_MM) * (anatomy > 0.3)
    return anatomy * (1 - weight) + VESSEL * weight


def _winding_course_mm(start_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 3) points, 0.7 mm apart."""
    direction = ndimage.gaussian_filter1d(rng.normal(size=(90, 3)), 12, axis=0) * 6 + rng.normal(size=3)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return start_mm + np.cumsum(direction * 0.7, axis=0)


def _add_ball(depth_mm: np.ndarray, affine: np.ndarray, centre_mm: np.ndarray, radius_mm: float) -> None:
    """Raises the depth (X, Y, Z) to that below the surface of a ball, where the ball is."""
    reach = np.ceil((radius_mm + 1) / nib.affines.voxel_sizes(affine)).astype(int)
    centre = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), centre_mm)).astype(int)
    low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, depth_mm.shape)
    if (low >= high).any():
        return
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    indices = np.moveaxis(np.indices(high - low), 0, -1) + low
    distance_mm = np.linalg.norm(nib.affines.apply_affine(affine, indices) - centre_mm, axis=-1)
    depth_mm[window] = np.maximum(depth_mm[window], radius_mm - distance_mm)
