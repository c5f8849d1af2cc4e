"""From the box to a mask, by what the network says and what the image shows."""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.deepcut import deepcut_mask
from tests.benchmarks.baselines.phantoms import clicks_of, dice, ellipsoid, image_of, relaxed_box


def test_the_first_round_trains_on_the_box() -> None:
    truth = ellipsoid()
    points = clicks_of(truth)

    mask = deepcut_mask(image_of(truth), None, points, margin_voxels=2)

    np.testing.assert_array_equal(mask, relaxed_box(truth.shape, points.foreground_voxel, 0))


def test_a_network_that_over_segments_is_mended_where_the_image_shows_an_edge() -> None:
    truth = ellipsoid()
    points = clicks_of(truth)
    box = deepcut_mask(image_of(truth), None, points, margin_voxels=2)
    # Sure of the middle, undecided towards the faces of the box.
    opinion = np.where(ellipsoid(radii=(4, 4, 3)), 0.9, np.where(box, 0.52, 0.1))

    mask = deepcut_mask(500 * image_of(truth), opinion, points, margin_voxels=2)

    assert dice(opinion > 0.5, truth) < 0.75
    assert dice(mask, truth) > 0.9


def test_what_the_network_sees_outside_of_the_relaxed_box_is_background() -> None:
    truth, other = ellipsoid(radii=(4, 4, 3)), ellipsoid(centre=(25, 23, 16), radii=(3, 3, 2))
    points = clicks_of(truth)

    mask = deepcut_mask(image_of(truth | other), np.where(truth | other, 0.95, 0.05), points, margin_voxels=2)

    assert not mask[~relaxed_box(truth.shape, points.foreground_voxel, 2)].any()
    assert dice(mask, truth) > 0.9


def test_an_object_does_not_vanish() -> None:
    truth = ellipsoid()
    points = clicks_of(truth)

    mask = deepcut_mask(image_of(truth & False), np.full(truth.shape, 0.01), points, margin_voxels=2)

    np.testing.assert_array_equal(mask, deepcut_mask(image_of(truth), None, points, margin_voxels=2))
