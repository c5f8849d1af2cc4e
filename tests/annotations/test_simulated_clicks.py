"""The scripted annotator clicks where a structure ends, as a careful or an unsteady hand would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import label, regionprops

from lib.annotations.simulated_clicks import corrective_click, largest_component, simulated_extreme_points

masks = arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)).filter(np.any)


@given(masks, st.none() | st.integers(0, 99))
def test_the_clicks_span_the_tight_box_of_the_largest_component(mask: np.ndarray, seed: int | None) -> None:
    clicks = simulated_extreme_points(mask, None if seed is None else np.random.default_rng(seed))

    components = label(mask, connectivity=1)
    clicked = {int(components[tuple(click)]) for click in clicks}
    assert len(clicked) == 1 and 0 not in clicked
    regions = {region.label: region for region in regionprops(components)}
    region = regions[clicked.pop()]
    assert region.area == max(other.area for other in regions.values())
    for axis in range(3):
        assert clicks[2 * axis, axis] == region.bbox[axis]
        assert clicks[2 * axis + 1, axis] == region.bbox[axis + 3] - 1


@given(masks, st.floats(0.1, 20), st.integers(0, 99))
def test_an_unsteady_hand_stays_in_the_image(mask: np.ndarray, error_voxels: float, seed: int) -> None:
    clicks = simulated_extreme_points(mask, np.random.default_rng(seed), error_voxels)

    assert clicks.shape == (6, 3) and np.issubdtype(clicks.dtype, np.integer)
    assert (clicks >= 0).all() and (clicks < mask.shape).all()


def test_the_hand_misses_by_the_error_asked_for() -> None:
    one_voxel = np.zeros((31, 31, 31), dtype=bool)
    one_voxel[15, 15, 15] = True
    rng = np.random.default_rng(0)

    errors = np.concatenate([simulated_extreme_points(one_voxel, rng, 3.0) - 15 for _ in range(200)])

    assert errors.std() == pytest.approx(3.0, rel=0.05)
    assert errors.mean() == pytest.approx(0.0, abs=0.2)


def test_every_voxel_of_a_face_may_be_clicked() -> None:
    cube = np.ones((2, 2, 2), dtype=bool)
    rng = np.random.default_rng(0)

    lowest_in_x = {tuple(simulated_extreme_points(cube, rng)[0]) for _ in range(50)}

    assert lowest_in_x == {(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)}


@pytest.mark.parametrize("function", [simulated_extreme_points, largest_component])
def test_an_empty_mask_is_refused(function) -> None:
    with pytest.raises(ValueError, match="the mask is empty"):
        function(np.zeros((3, 3, 3), dtype=bool))


def test_an_error_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="error_voxels is 1.5, but rng is None"):
        simulated_extreme_points(np.ones((3, 3, 3), dtype=bool), error_voxels=1.5)


def missed_and_added() -> tuple[np.ndarray, np.ndarray]:
    """Return a mask that misses a block of 3 x 5 x 5 voxels and adds one of 3 x 3 x 3, and the truth."""
    truth, mask = np.zeros((20, 9, 9), dtype=bool), np.zeros((20, 9, 9), dtype=bool)
    truth[2:8, 2:7, 2:7] = mask[2:5, 2:7, 2:7] = True
    mask[14:17, 3:6, 3:6] = True
    return mask, truth


NOWHERE = np.empty((0, 3), dtype=int)


def test_a_correction_lies_in_the_middle_of_the_largest_error() -> None:
    mask, truth = missed_and_added()

    missed = corrective_click(mask, truth, (1, 1, 1), NOWHERE)
    added = corrective_click(truth, mask, (1, 1, 1), NOWHERE)
    largest_added = corrective_click(mask, mask[:1] & truth, (1, 1, 1), NOWHERE)

    assert missed is not None and missed.tolist() == [6, 3, 3] and truth[tuple(missed)]
    assert added is not None and added.tolist() == [6, 3, 3] and not mask[tuple(added)]
    assert largest_added is not None and largest_added.tolist() == [3, 3, 3]


def test_the_middle_is_in_millimetres() -> None:
    truth = np.zeros((9, 9, 5), dtype=bool)
    truth[1:8, 1:8, 1:4] = True

    click = corrective_click(np.zeros_like(truth), truth, (1, 1, 5), NOWHERE)

    assert click is not None and click.tolist() == [4, 4, 1]


def test_no_voxel_is_clicked_twice() -> None:
    truth = np.zeros((7, 7, 7), dtype=bool)
    mask = truth.copy()
    mask[2:5, 2:5, 2:5] = True

    click = corrective_click(mask, truth, (1, 1, 1), np.array([[3, 3, 3]]))

    assert click is not None and click.tolist() != [3, 3, 3] and mask[tuple(click)]
    assert corrective_click(mask, truth, (1, 1, 1), np.argwhere(mask)) is None


@pytest.mark.parametrize(("voxels", "clicked"), [(0, False), (7, False), (8, True)])
def test_an_error_of_few_voxels_is_left(voxels: int, clicked: bool) -> None:
    truth = np.zeros((9, 3, 3), dtype=bool)
    truth[:voxels, 1, 1] = True

    assert (corrective_click(np.zeros_like(truth), truth, (1, 1, 1), NOWHERE) is not None) is clicked
