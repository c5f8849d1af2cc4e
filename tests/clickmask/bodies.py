"""Make bodies, images of them on any grid, and clicks on them."""

from __future__ import annotations

import itertools
from functools import cache

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import DemoStudySettings, make_demo_study

TURNS = [(axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]
"""Every order and every sign of an image's axes."""

ISOTROPIC = DemoStudySettings((64, 64, 64), (1.0, 1.0, 1.0))
FINE = DemoStudySettings()
THICK = DemoStudySettings((80, 80, 10), (0.9, 0.9, 6.5), (10.0, 20.0))
ALL_SETTINGS = pytest.mark.parametrize("settings", [ISOTROPIC, FINE, THICK], ids=["isotropic", "fine", "thick"])


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


@cache
def demo(settings, index=0):
    image, truth = make_demo_study(index, settings)
    spacing_mm = tuple(float(s) for s in image.header.get_zooms())
    return np.asarray(image.dataobj, np.float32), np.asarray(truth.dataobj) > 0, spacing_mm


def clicks_on(truth, seed=0, error_voxels=0.0):
    clicks = simulated_extreme_points(truth, np.random.default_rng(seed), error_voxels)
    return ExtremePoints.from_clicks("lesion", clicks)


def with_more(points, foreground=(), background=()):
    return ExtremePoints.from_clicks(
        points.label,
        np.concatenate([points.foreground_voxel, np.reshape(foreground, (-1, 3))]),
        np.reshape(background, (-1, 3)),
    )


def ellipsoid(shape, centre, radii):
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)) <= 1


def painted(mask, inside=300.0, outside=100.0, noise=15.0, seed=0):
    return np.where(mask, inside, outside) + np.random.default_rng(seed).normal(0, noise, mask.shape)


def obeys(mask, points):
    return mask[tuple(points.foreground_voxel.T)].all() and not mask[tuple(points.background_voxel.T)].any()
