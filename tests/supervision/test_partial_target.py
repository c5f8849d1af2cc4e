import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.supervision.boxes import relaxed_boxes
from lib.supervision.partial_target import BACKGROUND, UNKNOWN, StructureSupervision, partial_target

SHAPE = (20, 20, 20)
CLICKS = np.array([[6, 9, 9], [12, 9, 9], [9, 6, 9], [9, 12, 9], [9, 9, 6], [9, 9, 12]])


def line(axis, start=6, stop=13, through=(9, 9, 9)):
    path = np.tile(through, (stop - start, 1))
    path[:, axis] = np.arange(start, stop)
    return path


def structure(index=1, shift=0, background=()):
    points = ExtremePoints.from_clicks("x", CLICKS + shift, np.array(background).reshape(-1, 3))
    return StructureSupervision(index, points, [line(axis) + shift for axis in range(3)])


def target(*structures, margin=2, all_labels_clicked=True):
    possible = relaxed_boxes(SHAPE, [s.points.foreground_voxel for s in structures], margin)
    return partial_target(possible, structures, all_labels_clicked=all_labels_clicked)


def test_geodesics_are_foreground_outside_the_relaxed_box_is_background_the_rest_is_unknown():
    found = target(structure())

    assert (found == 1).sum() == 3 * 7 - 2
    inside = np.zeros(SHAPE, dtype=bool)
    inside[4:15, 4:15, 4:15] = True
    assert (found[~inside] == BACKGROUND).all()
    assert ((found[inside] == UNKNOWN) | (found[inside] == 1)).all()


def test_without_clicks_on_every_label_nothing_is_known_to_be_background():
    found = target(structure(), all_labels_clicked=False)

    assert set(np.unique(found)) == {UNKNOWN, 1}


def test_where_paths_of_two_labels_meet_nothing_is_known_unless_clicked():
    first, second = structure(1), structure(2)
    met = target(first, second)

    # The two structures share all paths; only their clicks settle voxels, the last label's on top.
    assert set(np.unique(met[4:15, 4:15, 4:15])) == {UNKNOWN, 2}
    assert (met[tuple(CLICKS.T)] == 2).all()


def test_one_label_inside_the_relaxed_box_of_another_keeps_its_paths():
    found = target(structure(1), structure(2, shift=4))

    assert (found == 1).sum() > 6
    assert (found == 2).sum() > 6
    assert found[13, 4, 9] == UNKNOWN


def test_background_clicks_are_background():
    found = target(structure(background=[[8, 8, 8]]))

    assert found[8, 8, 8] == BACKGROUND


def test_patch_that_cuts_the_structure_takes_what_lies_in_it():
    points = ExtremePoints.from_clicks("x", CLICKS - 9)
    paths = [path[(path >= 0).all(axis=1)] for path in (line(axis) - 9 for axis in range(3))]
    possible = relaxed_boxes((10, 10, 10), [points.foreground_voxel], 2)
    found = partial_target(possible, [StructureSupervision(1, points, paths)], all_labels_clicked=True)

    assert found[3, 0, 0] == 1
    assert found[5, 0, 0] == UNKNOWN
    assert found[6, 0, 0] == BACKGROUND


def test_patch_far_from_the_structure_is_background():
    points = ExtremePoints.from_clicks("x", CLICKS + 100)
    empty = [np.empty((0, 3), dtype=int)] * 3
    possible = relaxed_boxes((5, 5, 5), [points.foreground_voxel], 2)
    found = partial_target(possible, [StructureSupervision(1, points, empty)], all_labels_clicked=True)

    assert (found == BACKGROUND).all()
