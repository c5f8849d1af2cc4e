"""Cut the structures of scans out with their surroundings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lib.clicktraining.examples import Example, large_enough
from lib.clicktraining.samples import Sample, sample
from lib.clicktraining.turned_structures import turned
from lib.geometry.boxes import Box

ROOM, MIN_ROOM = 0.6, 12
"""Margin of the scan around a structure for rotations: a share of its extent, and a minimum in voxels."""

PLAIN_SAMPLES = 2
"""Samples of each structure without augmentation."""


def example_of(image: np.ndarray, box: Box, mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> Example | None:
    """Cut out a structure and its surroundings; None if it is too small for training.

    Args:
        image: (X, Y, Z), the scan.
        box: tight around the structure.
        mask: bool, the structure in that box.
        spacing_mm: voxel size along each axis.
    """
    if not large_enough(mask):
        return None
    i, j, k = (max(int(np.ceil(ROOM * n)), MIN_ROOM) for n in box.shape)
    room = box.relaxed((i, j, k), image.shape)
    whole = np.zeros(room.shape, dtype=bool)
    whole[box.shifted(-np.array(room.start)).slices] = mask
    return Example(np.array(image[room.slices], dtype=np.float32), whole, spacing_mm)


def real_samples(rng: np.random.Generator, examples: Sequence[Example], count: int) -> Iterator[Sample]:
    """Yield samples of each structure without augmentation, then `count` samples of rotated and stretched ones."""
    for _ in range(PLAIN_SAMPLES):
        for example in examples:
            if (one := sample(rng, example)) is not None:
                yield one
    for n in range(count):
        view = turned(rng, examples[n % len(examples)])
        if view is not None and (one := sample(rng, view)) is not None:
            yield one
