"""Atlases made from clicks alone."""

import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.clickmask.click_mask import segment_from_clicks
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.inference.group_atlas import MAX_STRUCTURES, MIN_STRUCTURES, ClickedStructure, group_atlas
from lib.metrics import dice

SHAPE = (44, 34, 26)


def comma(swell):
    """Make a mask (X, Y, Z) bool with a head at one end and a thin, bent tail; it fills a small part of its box."""
    x, y, z = np.ogrid[tuple(slice(n) for n in SHAPE)]
    head = (x - 13) ** 2 + (y - 12) ** 2 + (z - 13) ** 2 <= (7 * swell) ** 2
    bend = 12 + 14 * ((x - 13) / 24) ** 2
    tail = (x >= 13) & (x <= 37) & ((y - bend) ** 2 + (z - 13 - (x - 13) / 4) ** 2 <= (3.2 * swell) ** 2)
    return head | tail


def scan_of(mask, rng, contrast=30.0):
    image = 100 + contrast * mask + rng.normal(0, 20, mask.shape)
    return Volume(image.astype(np.float32), ImageGeometry(mask.shape, np.diag([1.0, 1.0, 1.0, 1.0])))


def clicked(count, seed=0, flipped=False):
    """Yield scans, clicks and truths; with `flipped`, mirrored along random axes."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mask = comma(rng.uniform(0.85, 1.15))
        if flipped:
            mask = np.flip(mask, np.flatnonzero(rng.random(3) < 0.5))
        points = ExtremePoints.from_clicks("comma", simulated_extreme_points(mask, rng, 0.5))
        yield scan_of(mask, rng), points, mask


def structures(count, **options):
    return [ClickedStructure.of(scan, points) for scan, points, _ in clicked(count, **options)]


def test_atlas_improves_click_masks():
    atlas = group_atlas(structures(8))
    assert atlas is not None

    def found(scan, points, atlas):
        g = scan.geometry
        return segment_from_clicks(scan.array, points, g.spacing_mm, atlas=atlas, affine_ras=g.affine_ras)

    unseen = list(clicked(5, seed=1))
    before, after = (
        np.mean([dice(found(scan, points, of), truth) for scan, points, truth in unseen]) for of in (None, atlas)
    )
    assert after > before + 0.02


@pytest.mark.parametrize(("count", "flipped"), [(12, True), (MIN_STRUCTURES - 1, False)])
def test_structures_without_a_common_shape_and_few_structures_have_no_atlas(count, flipped):
    assert group_atlas(structures(count, flipped=flipped)) is None


def test_the_last_of_many_structures_are_used(monkeypatch):
    made, shape = [], ClickedStructure.shape
    monkeypatch.setattr(ClickedStructure, "shape", lambda self, atlas: made.append(self) or shape(self, atlas))
    monkeypatch.setattr("lib.inference.group_atlas.ROUNDS", 1)
    many = structures(MAX_STRUCTURES + 3)

    group_atlas(many)
    assert made == many[3:]


@pytest.mark.parametrize("margin", [0, 9])
def test_mask_does_not_depend_on_the_rest_of_the_scan(margin):
    room = 6
    scan, points, _ = next(clicked(1))

    def shape(margin):
        padded = np.pad(np.pad(scan.array, room, mode="edge"), margin, mode="edge")
        volume = Volume(padded, ImageGeometry(padded.shape, scan.geometry.affine_ras))
        moved = ExtremePoints.from_clicks("comma", points.foreground_voxel + room + margin)
        return ClickedStructure.of(volume, moved).shape(None)

    np.testing.assert_allclose(shape(0).mask, shape(margin).mask, atol=0.02)
