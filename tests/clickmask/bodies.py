"""Bodies that lie in the patient, and images of them on any grid."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np

TURNS = [(axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]
"""Every order and every sign of an image's axes."""


def lopsided(shape=(30, 36, 28), scale=1.0, shift=(0, 0, 0)):
    """(X, Y, Z) bool: two overlapping balls, the small one to the right, front and top; like none of its mirrors."""
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    middle = np.array(shape) / 2 + shift

    def ball(offset, radius):
        return (
            sum((g - m - scale * o) ** 2 for g, m, o in zip(grid, middle, offset, strict=True)) <= (scale * radius) ** 2
        )

    return ball((-2, -3, -1.5), 6.2) | ball((3, 4, 2), 4.5)


def turned(array, affine, axes, signs):
    """The same image stored with other axes: an array (X, Y, Z) and its affine (4, 4)."""
    orientation = np.stack([axes, signs], axis=1).astype(float)
    turned_affine = affine @ nib.orientations.inv_ornt_aff(orientation, array.shape)
    return nib.apply_orientation(array, orientation), turned_affine


def blobs(count, seed=0):
    """Ellipsoids with axes, bumps and holes of chance, which have no shape in common."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[:28, :28, :28].astype(float)
    for _ in range(count):
        parts = [
            (((grid - rng.uniform(8, 20, (3, 1, 1, 1))) / rng.uniform(3, 7, (3, 1, 1, 1))) ** 2).sum(axis=0) <= 1
            for _ in range(3)
        ]
        yield np.logical_or.reduce(parts)
