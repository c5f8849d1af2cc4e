"""The walker finds a structure that stands out, and obeys clicks."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.baselines.random_walker import random_walker_mask
from lib.annotations.extreme_points import ExtremePoints
from tests.benchmarks.baselines.phantoms import clicks_of, dice, ellipsoid, image_of

# The solver warns where it did not converge.
pytestmark = pytest.mark.filterwarnings("error")

SPACING_MM = (1.0, 1.0, 1.5)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_structure_that_stands_out_is_found_whatever_the_scale_of_intensities(scale: float) -> None:
    truth = ellipsoid()

    mask = random_walker_mask(scale * image_of(truth, 0.1), clicks_of(truth), SPACING_MM, margin_voxels=2)

    assert dice(mask, truth) > 0.9


def test_clicks_are_obeyed_and_outside_of_the_relaxed_box_there_is_nothing() -> None:
    truth = ellipsoid()
    points = clicks_of(truth)
    with_background = ExtremePoints.from_clicks("lesion", points.foreground_voxel, np.array([[14, 13, 12]]))

    mask = random_walker_mask(image_of(truth, 1.0), with_background, SPACING_MM, margin_voxels=2)

    assert mask[tuple(points.foreground_voxel.T)].all()
    assert not mask[14, 13, 12]
    found, low, high = np.argwhere(mask), *(f(points.foreground_voxel, axis=0) for f in (np.min, np.max))
    assert (found >= low - 2).all() and (found <= high + 2).all()


def test_a_background_click_on_a_click_on_the_structure_does_not_take_it_away() -> None:
    truth = ellipsoid()
    points = clicks_of(truth)
    in_conflict = ExtremePoints.from_clicks("lesion", points.foreground_voxel, points.foreground_voxel[:1])

    mask = random_walker_mask(image_of(truth, 0.1), in_conflict, SPACING_MM, margin_voxels=2)

    assert mask[tuple(points.foreground_voxel.T)].all()


def test_where_the_network_is_sure_it_is_followed() -> None:
    """On an image that says nothing, a network that knows the structure makes the mask better."""
    truth = ellipsoid()
    nothing, points = image_of(truth & False), clicks_of(truth)
    knows = np.where(truth, 0.99, 0.01)

    alone = random_walker_mask(nothing, points, SPACING_MM, margin_voxels=2)
    guided = random_walker_mask(nothing, points, SPACING_MM, margin_voxels=2, foreground_probability=knows)

    assert dice(guided, truth) > max(0.95, dice(alone, truth))


def test_a_box_that_fills_the_image_leaves_nothing_to_the_background() -> None:
    truth = np.ones((8, 8, 8), dtype=bool)

    mask = random_walker_mask(image_of(truth), clicks_of(truth), (1.0, 1.0, 1.0), margin_voxels=2)

    assert mask.all()
