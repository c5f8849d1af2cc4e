"""Simulate an annotator: six clicks on a structure, then one at a time in the middle of the largest error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import NamedTuple

import nibabel as nib
import numpy as np

from benchmarks.evidence.structures import Structure, StructureFolder
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import corrective_click, simulated_extreme_points
from lib.clickmask.label_map import BoxedMask
from lib.clickmask.learnt import Learnt
from lib.clickmask.shape_atlas import Shape, ShapeAtlas
from lib.geometry.boxes import Box
from lib.geometry.volume import Volume
from lib.inference.click_label_map import click_mask
from lib.inference.group_atlas import MAX_STRUCTURES, ClickedStructure, group_atlas
from lib.metrics import dice
from lib.training.click_network_training import SECONDS, ClickExample, train_click_network

FARTHEST_MISS = 8
"""Maximum click error in standard deviations."""

Segmenter = Callable[[Volume, ExtremePoints], BoxedMask]
"""Makes the mask of the structure that was clicked: a box of the image, and the mask in it."""


@dataclass(frozen=True)
class Hand:
    """Simulated annotator with random click errors.

    Attributes:
        draw: number that the clicks are drawn by, at least 0.
        error_voxels: standard deviation of a click's error along each axis.
    """

    draw: int
    error_voxels: float

    def six_clicks(self, structure: Structure) -> ExtremePoints:
        """Extreme points with errors, the same whichever other cases and labels there are.

        Six clicks that a request would refuse, because they have no extent along an axis, are drawn again.
        """
        rng = np.random.default_rng([self.draw, structure.value, *structure.case.encode()])
        box, _ = structure.truth
        region = box.relaxed(int(np.ceil(FARTHEST_MISS * self.error_voxels)), structure.image_shape)
        truth = _seen_in(region, structure.truth)
        while True:
            clicks_voxel = simulated_extreme_points(truth, rng, self.error_voxels)
            if np.ptp(clicks_voxel, axis=0).all():
                return ExtremePoints.from_clicks(structure.label, clicks_voxel + region.start)


def segmenter(
    folder: StructureFolder, label: str, accepted: Sequence[str], clicked: Sequence[str], hand: Hand
) -> Segmenter:
    """Return what makes the masks of a label after masks of other cases were accepted and further cases clicked.

    Args:
        folder: where to load those cases from.
        accepted: cases whose true masks were accepted.
        clicked: cases with six clicks only.
        hand: whose clicks these are.

    Raises:
        DatasetError, VolumeError: a case cannot be read.
    """
    learnt = _learnt_from_masks(folder, label, accepted)
    if learnt is None:
        atlas = _atlas_of_clicks(folder, label, clicked, hand)
        learnt = None if atlas is None else Learnt(atlas)
    return partial(click_mask, learnt=learnt)


def _learnt_from_masks(folder: StructureFolder, label: str, cases: Sequence[str]) -> Learnt | None:
    examples = [_example(volume, structure) for volume, structure in _structures(folder, label, cases)]
    if not examples:
        return None
    return Learnt(ShapeAtlas.of([example.shape for example in examples]), train_click_network(examples, SECONDS))


def _example(volume: Volume, structure: Structure) -> ClickExample:
    affine_ras, (box, mask) = volume.geometry.affine_ras, structure.truth
    whole = np.zeros(volume.array.shape, bool)
    whole[box.slices] = mask
    turn = nib.io_orientation(affine_ras)
    image, whole = (nib.apply_orientation(array, turn) for array in (volume.array, whole))
    return ClickExample.of(image, whole, volume.geometry.canonical_spacing_mm, Shape.of_mask(mask, affine_ras))


def _atlas_of_clicks(folder: StructureFolder, label: str, cases: Sequence[str], hand: Hand) -> ShapeAtlas | None:
    return group_atlas(
        [
            ClickedStructure.of(volume, hand.six_clicks(structure))
            for volume, structure in _structures(folder, label, cases[-MAX_STRUCTURES:])
        ]
    )


def _structures(folder: StructureFolder, label: str, cases: Sequence[str]) -> Iterator[tuple[Volume, Structure]]:
    for case in cases:
        volume, structures = folder.load(case)
        yield from ((volume, of) for of in structures if of.label == label and not of.too_small)


class Score(NamedTuple):
    """Scores of one mask; `volume_ratio` is its volume divided by the true one, `seconds` the time to make it."""

    dice: float
    volume_ratio: float
    seconds: float


def scores(
    segment: Segmenter, volume: Volume, points: ExtremePoints, truth: BoxedMask, corrections: int
) -> Iterator[Score]:
    """After the clicks as given, and after each of so many corrective ones; once nothing is left to correct, the last
    score again.
    """
    for done in range(corrections + 1):
        start = time.perf_counter()
        found = segment(volume, points)
        seconds = time.perf_counter() - start
        region = _around(found[0], truth[0], Box.around(points.foreground_voxel))
        mask, right = _seen_in(region, found), _seen_in(region, truth)
        score = Score(dice(mask, right), np.count_nonzero(mask) / np.count_nonzero(right), seconds)
        yield score
        if done == corrections:
            return
        clicked = points.foreground_voxel - region.start
        click = corrective_click(mask, right, volume.geometry.spacing_mm, clicked)
        if click is None:
            yield from repeat(score, corrections - done)
            return
        points = _with_click(points, click + region.start, foreground=bool(right[tuple(click)]))


def _with_click(points: ExtremePoints, click_voxel: np.ndarray, *, foreground: bool) -> ExtremePoints:
    inside, outside = points.foreground_voxel, points.background_voxel
    if foreground:
        inside = np.concatenate([inside, click_voxel[None]])
    else:
        outside = np.concatenate([outside, click_voxel[None]])
    return ExtremePoints.from_clicks(points.label, inside, outside)


def _around(*boxes: Box) -> Box:
    return Box.around(np.concatenate([[box.start, np.subtract(box.stop, 1)] for box in boxes]))


def _seen_in(region: Box, boxed: BoxedMask) -> np.ndarray:
    """Return the mask (x, y, z) in a region that holds its box."""
    box, mask = boxed
    seen = np.zeros(region.shape, dtype=bool)
    seen[box.shifted(-np.array(region.start)).slices] = mask
    return seen
