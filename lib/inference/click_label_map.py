"""Make the masks of clicks on one image; a network joins by its validation score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.click_mask import segment_from_clicks
from lib.clickmask.context_box import context_box
from lib.clickmask.label_map import BoxedMask, merge_masks
from lib.clickmask.learnt import Learnt
from lib.geometry.boxes import Box
from lib.geometry.volume import Volume
from lib.inference.processor_threads import in_turn
from lib.networks.checkpoint import TrainedModel

Probability = Callable[[str, Box], np.ndarray]
"""Gives the probability of a label in a box of the image: (x, y, z) in [0, 1], on the image's own voxels."""


def network_prior_weight(model: TrainedModel) -> float:
    """The weight in [0, 1] of a network's probability in the prior: 0 up to a validation score of 0.5, 1 at 1.

    A network without a score has weight 0. A network improves the mask of the clicks only once its own masks come close
    to it (docs/method.md).
    """
    return max(0.0, 2 * (model.score or 0.0) - 1)


def click_label_map(
    volume: Volume,
    structures: Sequence[ExtremePoints],
    index: Mapping[str, int],
    probability: Probability | None = None,
    prior_weight: float = 0.0,
    learnt: Mapping[str, Learnt] = MappingProxyType({}),
) -> np.ndarray:
    """The structures that were clicked.

    Args:
        volume: may be memory-mapped; only what surrounds the clicks is read.
        structures: one for each label; there may be none.
        index: of each label in the result, 1 to 255.
        probability: of a trained network.
        prior_weight: of it, in [0, 1].
        learnt: of the labels whose shape is known.

    Returns:
        (X, Y, Z) uint8, the first axis fastest in memory, as in the files of images.
    """
    masks = {
        index[points.label]: click_mask(volume, points, probability, prior_weight, learnt.get(points.label))
        for points in structures
    }
    clicks = {index[points.label]: points.foreground_voxel for points in structures}
    return merge_masks(masks, clicks, volume.geometry.spacing_mm, volume.geometry.shape)


def click_mask(
    volume: Volume,
    points: ExtremePoints,
    probability: Probability | None = None,
    prior_weight: float = 0.0,
    learnt: Learnt | None = None,
) -> BoxedMask:
    """One structure: the box that was looked at, and the mask (x, y, z) bool in it."""
    box = context_box(points, volume.geometry.shape)
    image = volume.array[box.slices]
    foreground = probability(points.label, box) if probability is not None and prior_weight > 0 else None

    def segmented(learnt: Learnt | None) -> np.ndarray:
        return segment_from_clicks(
            image,
            seen_from(points, box),
            volume.geometry.spacing_mm,
            foreground_probability=foreground,
            prior_weight=prior_weight,
            atlas=None if learnt is None else learnt.atlas,
            network=None if learnt is None else learnt.network,
            affine_ras=volume.geometry.affine_ras,
        )

    if learnt is None or learnt.network is None:
        return box, segmented(learnt)
    # Each thread in which PyTorch has worked keeps memory, and requests come in forty.
    (mask,) = in_turn(segmented, [learnt])
    return box, mask


def seen_from(points: ExtremePoints, box: Box) -> ExtremePoints:
    """The clicks in voxels of the box. Background clicks beyond it say nothing of what is in it."""
    background = points.background_voxel
    near = ((background >= box.start) & (background < box.stop)).all(axis=1)
    return ExtremePoints(
        points.label,
        points.extremes_voxel - box.start,
        points.foreground_voxel - box.start,
        background[near] - np.array(box.start),
    )
