"""Label sets of clicks and masks."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.annotations.extreme_points import ExtremePoints
from lib.supervision.label_sets import StructureSupervision, intersection, label_sets_of_clicks, label_sets_of_mask

SHAPE = (20, 20, 20)
CLICKS = np.array([[6, 9, 9], [12, 9, 9], [9, 6, 9], [9, 12, 9], [9, 9, 6], [9, 9, 12]])
MARGIN = 2
A, B = 1, 2
ANYTHING, NOT_A, NOT_B, NEITHER = {0, A, B}, {0, B}, {0, A}, {0}


def line(axis, start=6, stop=13, through=(9, 9, 9)):
    path = np.tile(through, (stop - start, 1))
    path[:, axis] = np.arange(start, stop)
    return path


def structure(index=A, shift=(0, 0, 0), background=(), geodesics=None):
    """Make a structure of six clicks, their relaxed box, and straight lines between opposite clicks."""
    clicks = CLICKS + shift
    paths = [line(axis) + shift for axis in range(3)] if geodesics is None else geodesics
    voxel = np.stack(np.indices(SHAPE), axis=-1)
    box = ((voxel >= clicks.min(axis=0) - MARGIN) & (voxel <= clicks.max(axis=0) + MARGIN)).all(axis=-1)
    points = ExtremePoints.from_clicks("x", clicks, np.array(background, dtype=int).reshape(-1, 3))
    inside = [path[((path >= 0) & (path < SHAPE)).all(axis=1)] for path in paths]
    return StructureSupervision(index, points, torch.from_numpy(box), inside)


def at(label_sets, voxel):
    """Return the label set of a voxel."""
    return set(np.flatnonzero(label_sets[(slice(None), *voxel)]).tolist())


def everywhere(label_sets, where=None):
    """Return the label sets that occur, as a set of sorted tuples."""
    voxels = label_sets.flatten(1) if where is None else label_sets[:, torch.as_tensor(where)]
    return {tuple(np.flatnonzero(column).tolist()) for column in voxels.T.unique(dim=0)}


# Clicks on one label


def test_one_label_alone_is_foreground_on_its_paths_unknown_in_its_box_and_background_elsewhere():
    only = structure()
    label_sets = label_sets_of_clicks(SHAPE, 1, [only])

    on_paths = torch.zeros(SHAPE, dtype=torch.bool)
    on_paths[tuple(np.concatenate(only.geodesics).T)] = True
    assert on_paths.sum() == 3 * 7 - 2
    assert everywhere(label_sets, on_paths) == {(A,)}
    assert everywhere(label_sets, only.box & ~on_paths) == {(0, A)}
    assert everywhere(label_sets, ~only.box) == {(0,)}


def test_without_annotations_every_class_is_possible():
    assert everywhere(label_sets_of_clicks(SHAPE, 2, [])) == {(0, A, B)}
    assert everywhere(label_sets_of_mask(mask_of(), 2, [])) == {(0, A, B)}


def test_label_that_was_clicked_is_not_outside_its_box_and_the_other_may_be_anywhere():
    only = structure(A)
    label_sets = label_sets_of_clicks(SHAPE, 2, [only])

    assert everywhere(label_sets, ~only.box) == {tuple(sorted(NOT_A))}
    assert at(label_sets, (5, 5, 5)) == ANYTHING
    assert at(label_sets, (9, 9, 9)) == {A}


def test_with_clicks_on_all_labels_voxels_outside_all_boxes_are_background():
    first, second = structure(A), structure(B, shift=(5, 0, 0))
    label_sets = label_sets_of_clicks(SHAPE, 2, [first, second])

    assert everywhere(label_sets, ~first.box & ~second.box) == {(0,)}
    assert at(label_sets, (5, 5, 5)) == NOT_B
    assert at(label_sets, (18, 5, 5)) == NOT_A
    assert at(label_sets, (10, 5, 5)) == ANYTHING


def test_absent_labels_are_excluded_everywhere():
    only = structure(A)
    label_sets = label_sets_of_clicks(SHAPE, 2, [only], absent=[B])

    assert not label_sets[B].any()
    assert torch.equal(label_sets[[0, A]], label_sets_of_clicks(SHAPE, 1, [only]))
    assert everywhere(label_sets_of_clicks(SHAPE, 2, [], absent=[A, B])) == {(0,)}


# Background clicks


@pytest.mark.parametrize(
    ("click", "beside", "beside_has"), [((5, 5, 5), (5, 5, 6), ANYTHING), ((8, 9, 9), (7, 9, 9), {A})]
)
def test_background_click_excludes_its_label_there_and_no_more_also_on_a_path(click, beside, beside_has):
    label_sets = label_sets_of_clicks(SHAPE, 2, [structure(A, background=[click])])

    assert at(label_sets, click) == NOT_A
    assert at(label_sets, beside) == beside_has


def test_background_click_of_one_label_leaves_the_path_of_another():
    label_sets = label_sets_of_clicks(SHAPE, 2, [structure(A, shift=(0, 4, 0)), structure(B, background=[[8, 13, 9]])])

    assert at(label_sets, (8, 13, 9)) == {A}


@pytest.mark.parametrize("outside", [[-1, 5, 5], [5, 20, 5], [100, 100, 100]])
def test_background_clicks_outside_the_patch_are_ignored(outside):
    with_click = label_sets_of_clicks(SHAPE, 2, [structure(A, background=[outside])])

    assert torch.equal(with_click, label_sets_of_clicks(SHAPE, 2, [structure(A)]))


# Paths of several labels


def test_paths_of_two_labels_are_ignored_where_they_overlap():
    first = structure(A)
    # The path of the second structure leaves it, through the first.
    second = structure(B, shift=(4, 4, 0), geodesics=[line(0, 6, 17, (9, 9, 9))])
    label_sets = label_sets_of_clicks(SHAPE, 2, [first, second])

    assert at(label_sets, (8, 9, 9)) == ANYTHING  # contested
    assert at(label_sets, (9, 8, 9)) == {A}  # on the path of the first only
    assert at(label_sets, (15, 9, 9)) == {B}  # on the path of the second only
    assert at(label_sets, (6, 9, 9)) == {A}  # contested, and clicked


def test_boxes_and_absent_labels_hold_where_paths_overlap():
    path = [line(0, 0, 20)]
    first, second = structure(A, geodesics=path), structure(B, shift=(5, 0, 0), geodesics=path)
    label_sets = label_sets_of_clicks(SHAPE, 3, [first, second], absent=[3])

    assert [at(label_sets, (x, 9, 9)) for x in (1, 5, 10, 18)] == [NEITHER, NOT_B, ANYTHING, NOT_A]


def test_paths_of_one_label_may_cross():
    assert at(label_sets_of_clicks(SHAPE, 1, [structure(A)]), (9, 9, 9)) == {A}


def test_clicks_of_touching_structures_keep_their_labels():
    first, second = structure(A), structure(B, shift=(4, 0, 0))
    label_sets = label_sets_of_clicks(SHAPE, 2, [first, second])

    assert all(at(label_sets, click) == {A} for click in CLICKS)
    assert all(at(label_sets, click) == {B} for click in CLICKS + (4, 0, 0))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_order_of_structures_does_not_matter(order):
    structures = [structure(A), structure(B, (3, 1, 0), [[9, 9, 9]]), structure(3, (0, 3, 2), [[9, 9, 9]])]

    shuffled = label_sets_of_clicks(SHAPE, 3, [structures[n] for n in order])

    assert torch.equal(shuffled, label_sets_of_clicks(SHAPE, 3, structures))


# Patches that cut a structure


def test_label_sets_of_a_patch_are_those_of_the_scan():
    whole = label_sets_of_clicks(SHAPE, 2, [structure(A), structure(B, shift=(4, 2, 1))])
    cut = []
    for index, shift in ((A, (0, 0, 0)), (B, (4, 2, 1))):
        of_scan, moved = structure(index, shift), structure(index, np.subtract(shift, 8))
        cut.append(StructureSupervision(index, moved.points, of_scan.box[8:, 8:, 8:], moved.geodesics))

    assert torch.equal(label_sets_of_clicks((12, 12, 12), 2, cut), whole[:, 8:, 8:, 8:])


def test_label_is_excluded_in_a_patch_far_from_its_structure():
    far = structure(A, shift=(100, 100, 100))

    assert everywhere(label_sets_of_clicks(SHAPE, 2, [far])) == {tuple(sorted(NOT_A))}


# Masks


def mask_of(**blocks):
    mask = torch.zeros(SHAPE, dtype=torch.int64)
    for value, where in blocks.items():
        mask[where] = int(value[1:])
    return mask


def test_mask_of_all_labels_is_the_only_class_of_each_voxel():
    mask = torch.randint(0, 3, SHAPE, generator=torch.Generator().manual_seed(0))
    label_sets = label_sets_of_mask(mask, 2, [A, B])

    assert torch.equal(label_sets.sum(dim=0), torch.ones(SHAPE, dtype=torch.int64))
    assert torch.equal(label_sets.int().argmax(dim=0), mask)


def test_uncovered_label_is_possible_where_the_mask_is_0():
    mask = mask_of(_1=np.s_[4:8])
    label_sets = label_sets_of_mask(mask, 2, [A])

    assert everywhere(label_sets, mask == A) == {(A,)}
    assert everywhere(label_sets, mask == 0) == {tuple(sorted(NOT_A))}


def test_mask_of_one_label_is_combined_with_clicks_on_another():
    mask = mask_of(_1=np.s_[0:9])
    clicks = label_sets_of_clicks(SHAPE, 2, [structure(B, shift=(5, 0, 0))])
    label_sets = intersection(clicks, label_sets_of_mask(mask, 2, [A]))

    assert at(label_sets, (5, 5, 5)) == {A}
    assert at(label_sets, (12, 5, 5)) == NOT_A  # beside the mask, in the box
    assert at(label_sets, (14, 9, 9)) == {B}  # on a path
    assert at(label_sets, (15, 0, 0)) == NEITHER  # beside the mask and the box


def test_mask_overrides_contradicting_clicks():
    mask = mask_of(_1=np.s_[:])
    clicks = label_sets_of_clicks(SHAPE, 2, [structure(B)])

    assert everywhere(intersection(clicks, label_sets_of_mask(mask, 2, [A]))) == {(A,)}


# Any annotations


@st.composite
def anything(draw):
    """Draw structures, boxes that need not contain their clicks, arbitrary paths, masks and absent labels."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    label_count = draw(st.integers(1, 4))
    labels = st.integers(1, label_count)
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))

    def voxels(low, high):
        return generator.integers(-2, 8, (draw(st.integers(low, high)), 3))

    structures = [
        StructureSupervision(
            index,
            ExtremePoints.from_clicks("x", voxels(6, 9), voxels(0, 5)),
            torch.from_numpy(generator.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))),
            [generator.integers(0, shape, (draw(st.integers(0, 6)), 3)) for _ in range(3)],
        )
        for index in draw(st.lists(labels, unique=True))
    ]
    mask = torch.from_numpy(generator.integers(0, label_count + 1, shape))
    return shape, label_count, structures, draw(st.sets(labels)), mask, draw(st.sets(labels))


@settings(deadline=None, max_examples=200)
@given(anything())
def test_every_voxel_keeps_at_least_one_class(case):
    shape, label_count, structures, absent, mask, covered = case

    clicks = label_sets_of_clicks(shape, label_count, structures, absent)
    of_mask = label_sets_of_mask(mask, label_count, covered)

    for label_sets in (clicks, of_mask, intersection(clicks, of_mask), intersection(of_mask, clicks)):
        assert label_sets.shape == (1 + label_count, *shape) and label_sets.dtype == torch.bool
        assert label_sets.any(dim=0).all()


@settings(deadline=None, max_examples=100)
@given(anything())
def test_narrowed_is_the_intersection_except_where_it_is_empty(case):
    shape, label_count, structures, absent, mask, covered = case
    clicks = label_sets_of_clicks(shape, label_count, structures, absent)
    of_mask = label_sets_of_mask(mask, label_count, covered)

    both = intersection(clicks, of_mask)

    agree = (clicks & of_mask).any(dim=0)
    assert torch.equal(both[:, agree], (clicks & of_mask)[:, agree])
    assert torch.equal(both[:, ~agree], of_mask[:, ~agree])
