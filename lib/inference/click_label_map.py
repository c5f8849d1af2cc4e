"""Make the click masks of one image; a network contributes by its validation score."""

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
from lib.inference.processor_threads import parallel_map
from lib.networks.checkpoint import TrainedModel

Probability = Callable[[str, Box], np.ndarray]
"""Returns the probability of a label in a box of the image: (x, y, z) in [0, 1], on the image's own voxels."""


def network_prior_weight(model: TrainedModel) -> float:
    """Return the weight in [0, 1] of a network in the prior: 0 up to a validation score of 0.5, 1 at a score of 1.

    A network without a score has weight 0. A network improves click masks only once its own masks are of similar
    quality (docs/method.md).
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
    """Make the label map of clicked structures.

    Args:
        volume: may be memory-mapped; only the surroundings of the clicks are read.
        structures: at most one for each label.
        index: of each label in the result, 1 to 255.
        probability: of a trained network.
        prior_weight: weight of this probability, in [0, 1].
        learnt: shape atlas and click network, by label.

    Returns:
        (X, Y, Z) uint8, in Fortran order, like images in files.
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
    """Make the mask of one structure: the box of its surroundings, and the mask (x, y, z) bool in it."""
    box = context_box(points, volume.geometry.shape)
    image = volume.array[box.slices]
    foreground = probability(points.label, box) if probability is not None and prior_weight > 0 else None

    def segmented(learnt: Learnt | None) -> np.ndarray:
        return segment_from_clicks(
            image,
            clicks_in_box(points, box),
            volume.geometry.spacing_mm,
            foreground_probability=foreground,
            prior_weight=prior_weight,
            atlas=None if learnt is None else learnt.atlas,
            network=None if learnt is None else learnt.network,
            affine_ras=volume.geometry.affine_ras,
        )

    if learnt is None or learnt.network is None:
        return box, segmented(learnt)
    # PyTorch keeps memory for each thread that it has used, and requests come in forty threads.
    (mask,) = parallel_map(segmented, [learnt])
    return box, mask


def clicks_in_box(points: ExtremePoints, box: Box) -> ExtremePoints:
    """Shift clicks to voxels of the box, and drop background clicks outside it."""
    background = points.background_voxel
    near = ((background >= box.start) & (background < box.stop)).all(axis=1)
    return ExtremePoints(
        points.label,
        points.extremes_voxel - box.start,
        points.foreground_voxel - box.start,
        background[near] - np.array(box.start),
    )
