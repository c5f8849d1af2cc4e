"""Draw lesions, and distractors of similar intensity, into an image."""

from __future__ import annotations

from typing import Literal, NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.special import expit

from lib.annotations.simulated_clicks import largest_component

# Intensities on the template's scale, on which white matter is about 0.85.
RIM, CORE, VESSEL = 1.08, 0.95, 1.06
RIM_WIDTH_MM = 1.2
BORDER_WIDTH_MM = 0.6
MOTTLE, MOTTLE_SIGMA_MM = 0.08, 1.0
NECK_WIDTH_MM = 1.5
ROUGHNESS_SIGMA_MM = 2.5
VESSELS, BLOBS = 5, 8
# Varied lesions: intensities darker than grey matter or brighter than white matter, and added contrast of the rim.
DARK, BRIGHT, VARIED_RIM = (0.25, 0.45), (0.95, 1.10), 0.10
# Maximum distance of a lesion's voxels from its centre, in radii.
REACH = 1.25


Contrast = Literal["bright", "varied"]


class Appearance(NamedTuple):
    """Intensities of a lesion, and of the structures around it that look like one."""

    core: float = CORE
    rim: float = RIM
    distractors: tuple[float, ...] = (VESSEL,)


BRIGHT_LESION = Appearance()


def draw_appearance(contrast: Contrast, rng: np.random.Generator) -> Appearance:
    """Draw the appearance of a study: bright, or randomly dark or bright with distractors of both kinds."""
    if contrast == "bright":
        return BRIGHT_LESION
    darker = rng.random() < 0.5
    core = rng.uniform(*(DARK if darker else BRIGHT))
    rim = core - VARIED_RIM if darker else core + VARIED_RIM
    return Appearance(core, rim, (rng.uniform(*DARK), rng.uniform(*BRIGHT)))


def lesion_depth_mm(
    affine: np.ndarray,
    shape: tuple[int, int, int],
    centre_mm: np.ndarray,
    radius_mm: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the signed depth below the surface of a lobulated lesion, one path-connected component.

    A lesion is a union of balls, each at the surface of the first one, with a rough surface.

    Returns:
        (X, Y, Z) float32 mm, positive inside.
    """
    points_mm = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)).astype(np.float32)
    ball_mm = 0.75 * radius_mm
    from_centre_mm = np.linalg.norm(points_mm - centre_mm.astype(np.float32), axis=-1)
    depth_mm = ball_mm - from_centre_mm
    for _ in range(rng.integers(2, 5)):
        direction = rng.normal(size=3)
        grown_mm = centre_mm + direction / np.linalg.norm(direction) * ball_mm * rng.uniform(0.8, 1.1)
        from_lobe_mm = np.linalg.norm(points_mm - grown_mm.astype(np.float32), axis=-1)
        depth_mm = _smooth_union(depth_mm, ball_mm * rng.uniform(0.5, 0.8) - from_lobe_mm)
    depth_mm += smooth_noise(shape, ROUGHNESS_SIGMA_MM / nib.affines.voxel_sizes(affine), rng)
    depth_mm = np.minimum(depth_mm, REACH * radius_mm - from_centre_mm)
    return np.where(largest_component(depth_mm > 0), depth_mm, -np.abs(depth_mm)).astype(np.float32)


def _smooth_union(a_mm: np.ndarray, b_mm: np.ndarray) -> np.ndarray:
    return NECK_WIDTH_MM * np.logaddexp(a_mm / NECK_WIDTH_MM, b_mm / NECK_WIDTH_MM)


def smooth_noise(shape: tuple[int, ...], sigma_voxels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw Gaussian noise of mean 0 and standard deviation 1, correlated over `sigma_voxels`."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma_voxels)
    return (noise - noise.mean()) / noise.std()


def draw_lesion(
    anatomy: np.ndarray,
    affine: np.ndarray,
    depth_mm: np.ndarray,
    rng: np.random.Generator,
    appearance: Appearance = BRIGHT_LESION,
) -> np.ndarray:
    """Draw the lesion into the anatomy: a rim of stronger contrast, a mottled core, and a soft border."""
    rim = np.exp(-((np.maximum(depth_mm, 0) / RIM_WIDTH_MM) ** 2))
    mottle = smooth_noise(anatomy.shape, MOTTLE_SIGMA_MM / nib.affines.voxel_sizes(affine), rng)
    tissue = appearance.core + (appearance.rim - appearance.core) * rim + MOTTLE * mottle
    weight = expit(4 * depth_mm / BORDER_WIDTH_MM)
    return anatomy * (1 - weight) + tissue * weight


def draw_distractors(
    anatomy: np.ndarray,
    affine: np.ndarray,
    lesion_depth_mm: np.ndarray,
    rng: np.random.Generator,
    appearance: Appearance = BRIGHT_LESION,
) -> np.ndarray:
    """Draw vessels and small blobs with the intensity of a lesion; some touch it, none overlaps it."""
    drawn = anatomy
    for intensity in appearance.distractors:
        depth_mm = np.minimum(_distractors_depth_mm(anatomy.shape, affine, rng), -lesion_depth_mm)
        weight = expit(4 * depth_mm / BORDER_WIDTH_MM)
        drawn = drawn * (1 - weight) + intensity * weight
    return drawn


def _distractors_depth_mm(shape: tuple[int, ...], affine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the signed depth (X, Y, Z) below the surfaces of some vessels and blobs."""
    depth_mm = np.full(shape, -10.0, dtype=np.float32)

    def anywhere_mm() -> np.ndarray:
        return nib.affines.apply_affine(affine, rng.uniform(0, shape))

    for _ in range(VESSELS):
        radius_mm = rng.uniform(0.8, 1.5)
        for point_mm in _winding_course_mm(anywhere_mm(), rng):
            _add_ball(depth_mm, affine, point_mm, radius_mm)
    for _ in range(BLOBS):
        _add_ball(depth_mm, affine, anywhere_mm(), rng.uniform(1.2, 2.0))
    return depth_mm


def _winding_course_mm(start_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw points (n, 3) of a winding line, 0.7 mm apart."""
    direction = ndimage.gaussian_filter1d(rng.normal(size=(90, 3)), 12, axis=0) * 6 + rng.normal(size=3)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return start_mm + np.cumsum(direction * 0.7, axis=0)


def _add_ball(depth_mm: np.ndarray, affine: np.ndarray, centre_mm: np.ndarray, radius_mm: float) -> None:
    """Raise the depth (X, Y, Z) to that below the surface of a ball, inside the ball."""
    reach = np.ceil((radius_mm + 1) / nib.affines.voxel_sizes(affine)).astype(int)
    centre = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), centre_mm)).astype(int)
    low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, depth_mm.shape)
    if (low >= high).any():
        return
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    indices = np.moveaxis(np.indices(high - low), 0, -1) + low
    distance_mm = np.linalg.norm(nib.affines.apply_affine(affine, indices) - centre_mm, axis=-1)
    depth_mm[window] = np.maximum(depth_mm[window], radius_mm - distance_mm)
