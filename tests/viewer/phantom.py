"""Studies whose structures are known to the voxel: a bright lesion and a darker cyst in noise, both lopsided."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tests.physical import OBLIQUE, A, I, L, P, S, affine_ras

SHAPE = (56, 48, 28)
BACKGROUND, CYST, LESION = 200, 500, 900
# Directions of increasing column, row and slice index; voxels of 1 x 1 x 1.5 mm.
ACQUISITIONS = {
    "axial": [L, P, S],
    "axial, downwards": [L, P, I],
    "sagittal": [P, I, L],
    "coronal": [L, I, A],
    "oblique, downwards": [OBLIQUE @ L, OBLIQUE @ P, -(OBLIQUE @ S)],
}
SPACING_MM = (1.0, 1.0, 1.5)


def lopsided(centre, radii):
    """(X, Y, Z) bool: an ellipsoid with a bump towards low i and j."""
    centre, radii = np.array(centre), np.array(radii)
    indices = np.moveaxis(np.indices(SHAPE), 0, -1)
    body = np.linalg.norm((indices - centre) / radii, axis=-1) <= 1
    bump = np.linalg.norm((indices - centre + radii * (0.8, 0.8, 0)) / (0.6 * radii), axis=-1) <= 1
    return body | bump


def phantom(seed, acquisition):
    """Return the image (X, Y, Z) int16, masks by label, and the affine (4, 4) to RAS mm."""
    rng = np.random.default_rng(seed)
    centre = np.array([34, 28, 14]) + rng.integers(-3, 4, 3)
    masks = {"lesion": lopsided(centre, (8, 7, 5)), "cyst": lopsided(centre - (19, 12, 2), (5, 5, 4))}
    image = np.full(SHAPE, BACKGROUND, float)
    image[masks["lesion"]], image[masks["cyst"]] = LESION, CYST
    image = ndimage.gaussian_filter(image, 0.4) + rng.normal(0, 20, SHAPE)
    affine = affine_ras(ACQUISITIONS[acquisition], SPACING_MM, origin_mm=(20.0, -15.0, 30.0))
    return image.round().astype(np.int16), masks, affine
