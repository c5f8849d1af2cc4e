"""Average the shapes of structures of one label, in the frame of their box."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from lib.annotations.extreme_points import mask_extremes
from lib.annotations.simulated_clicks import largest_component
from lib.clickmask.box_frame import SIDE, BoxFrame, sample_indices
from lib.clickmask.shape_prior import extreme_point_gauge
from lib.clickmask.working_grid import WorkingGrid
from lib.geometry.boxes import Box

PRIOR_STRENGTH, SHRINKAGE = 5.0, 0.3
"""Parameters of the generic prior; defaults of `ClickMaskOptions`."""

GENERIC_COUNT = 1.5
"""Masks that the generic prior counts for; the best of 1.5, 3, 6, ..., wherever shapes are alike."""

MIN_GAIN = 0.25
"""Share of the generic prior's loss by which an atlas has to lower it, or it counts nothing. Hippocampi: 0.5 to 0.6;
sarcomas 0.08 to 0.18, which lose 0.01 of Dice to an atlas; blobs of chance 0.01 to 0.05."""

MIRRORING_GAIN = 0.97
"""Shapes are mirrored where that lowers the loss at least to this share."""

MAX_SHAPES = 48
"""More cost time and improve little."""

MIN_PROBABILITY = 0.01


class Shape(NamedTuple):
    """A structure in the frame of its box.

    Attributes:
        mask: (SIDE, SIDE, SIDE) float32 in [0, 1].
        extremes: (3, 2, 3) positions of its extreme points, [axis, low / high end].
    """

    mask: np.ndarray
    extremes: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, extremes_voxel: np.ndarray, affine_ras: np.ndarray) -> Shape:
        """From a mask (X, Y, Z) bool and extreme points (3, 2, 3) in its voxels, and the affine (4, 4) of its image."""
        frame = BoxFrame.around(extremes_voxel, affine_ras)
        padded = np.pad(mask, 1)  # in a frame, the outermost voxels are repeated
        return cls(frame.sampled(padded, np.full(3, -1)), frame.extremes(extremes_voxel))

    @classmethod
    def of_mask(cls, mask: np.ndarray, affine_ras: np.ndarray) -> Shape:
        """From the largest component of a mask (X, Y, Z) bool that is not empty, in the frame of its own box."""
        component = largest_component(mask)
        component = component[Box.around(np.argwhere(component)).slices]
        return cls.of(component, mask_extremes(component), affine_ras)

    @property
    def mirrored(self) -> Shape:
        """Left and right exchanged."""
        return Shape(self.mask[::-1], mirrored(self.extremes, (0,)))


@dataclass(frozen=True, eq=False)
class ShapeAtlas:
    """The mean of some shapes, and how much it counts beside the generic prior.

    Attributes:
        mean: (SIDE, SIDE, SIDE) float32 in [0, 1].
        extremes: (3, 2, 3) mean positions of the extreme points.
        weight: of the mean where the generic prior's weight is 1, at least 0.
        count: of the shapes.
        mirrors: mirror left and right where the extreme points then fit better?
        gain: share of the generic prior's loss by which it lowers that of masks that were left out; 0 where none were.
    """

    mean: np.ndarray
    extremes: np.ndarray
    weight: float
    count: int
    mirrors: bool = False
    gain: float = 0.0

    @classmethod
    def of(cls, shapes: Sequence[Shape]) -> ShapeAtlas:
        """An atlas of at most `MAX_SHAPES` shapes, the last ones.

        Weight and mirroring are those that predict each shape best from the others (leave one out). The weight
        is 0 where the shapes have too little in common. The atlas of one shape always has weight.

        Raises:
            ValueError: no shapes.
        """
        if not shapes:
            raise ValueError("there are no shapes; expected at least one")
        shapes = shapes[-MAX_SHAPES:]
        if len(shapes) == 1:
            return cls.mean_of(shapes, 1 / GENERIC_COUNT)
        plain, turned = _Prediction.of(shapes), _Prediction.of(aligned(shapes))
        mirrors = turned.loss < MIRRORING_GAIN * plain.loss
        best = turned if mirrors else plain
        weight = len(shapes) / GENERIC_COUNT if best.gain > MIN_GAIN else 0.0
        return replace(cls.mean_of(best.shapes, weight, mirrors=mirrors), gain=best.gain)

    @classmethod
    def mean_of(cls, shapes: Sequence[Shape], weight: float, *, mirrors: bool = False) -> ShapeAtlas:
        """An atlas with a given weight."""
        mean = np.mean([shape.mask for shape in shapes], axis=0, dtype=np.float32)
        extremes = np.mean([shape.extremes for shape in shapes], axis=0)
        return cls(mean, extremes, weight, len(shapes), mirrors)

    def probability(self, generic: np.ndarray, frame: BoxFrame, extremes: np.ndarray, grid: WorkingGrid) -> np.ndarray:
        """(X, Y, Z) of the foreground on a grid, of atlas and generic prior together.

        Args:
            generic: (X, Y, Z) of the generic prior.
            frame: of the structure that was clicked.
            extremes: (3, 2, 3) positions of its extreme points.
        """
        return self.joined(generic, frame.on_grid(self.mean_for(extremes), grid))

    def mean_for(self, extremes: np.ndarray) -> np.ndarray:
        """(SIDE, SIDE, SIDE): the mean, mirrored if that fits extreme points (3, 2, 3) better."""
        return self.mean[::-1] if self.mirrors and _fits_better_mirrored(extremes, self.extremes) else self.mean

    def joined(self, generic: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """The weighted mean of two probabilities, that of the generic prior and that of the atlas."""
        probability = (generic + self.weight * mean) / (1 + self.weight)
        return np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)

    @property
    def digest(self) -> str:
        """A digest of everything that a mask depends on."""
        content = self.mean.tobytes() + self.extremes.tobytes() + repr((self.weight, self.mirrors)).encode()
        return hashlib.sha256(content).hexdigest()[:16]


def aligned(shapes: Sequence[Shape]) -> list[Shape]:
    """Shapes, mirrored so that all lie as the first one does, by their extreme points."""
    mean = shapes[0].extremes
    for _ in range(3):
        turned = [s.mirrored if _fits_better_mirrored(s.extremes, mean) else s for s in shapes]
        mean = np.mean([s.extremes for s in turned], axis=0)
    return turned


def generic_probability(extremes: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, SIDE): the shape prior of six extreme points (3, 2, 3) in the frame, as probability."""
    gauge = extreme_point_gauge(sample_indices(extremes), (SIDE, SIDE, SIDE), shrinkage=SHRINKAGE)
    return expit(PRIOR_STRENGTH * (1 - gauge))


def mirrored(extremes: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Positions (3, 2, 3) of extreme points, mirrored along some axes."""
    turned = extremes.copy()
    for axis in axes:
        turned[..., axis] = 1 - turned[..., axis]
        turned[axis] = turned[axis, ::-1]
    return turned


def likeness(extremes: Sequence[np.ndarray]) -> float:
    """Measure whether structures have a common shape, by their extreme points (3, 2, 3) in their frames alone.

    The mean distance between those of two structures when one of the two is mirrored along some axes, as a multiple of
    the distance when neither is. It is about 1 where the shape does not depend on the direction in the patient,
    as with most tumours.

    Raises:
        ValueError: fewer than two structures.
    """
    if len(extremes) < 2:
        raise ValueError(f"{len(extremes)} structures; expected at least 2")
    stacked = np.stack(extremes)
    different = ~np.eye(len(stacked), dtype=bool)
    flips = [axes for count in range(4) for axes in itertools.combinations(range(3), count)]
    means = []
    for axes in flips:
        turned = np.stack([mirrored(of, axes) for of in stacked])
        squared = ((stacked[:, None] - turned[None]) ** 2).sum(axis=-1).mean(axis=(-1, -2))
        means.append(np.sqrt(squared)[different].mean())
    return float(np.mean(means[1:]) / max(means[0], 1e-9))


class _Prediction(NamedTuple):
    """How well each of some shapes is predicted by the others.

    Attributes:
        loss: the mean, of the generic prior and the others together.
        generic_loss: of the generic prior alone.
    """

    shapes: Sequence[Shape]
    loss: float
    generic_loss: float

    @property
    def gain(self) -> float:
        return 1 - self.loss / max(self.generic_loss, 1e-9)

    @classmethod
    def of(cls, shapes: Sequence[Shape]) -> _Prediction:
        total = np.sum([shape.mask for shape in shapes], axis=0)
        loss = generic_loss = 0.0
        for shape in shapes:
            generic = generic_probability(shape.extremes)
            generic_loss += _cross_entropy(shape.mask, generic)
            others = total - shape.mask + GENERIC_COUNT * generic
            loss += _cross_entropy(shape.mask, others / (len(shapes) - 1 + GENERIC_COUNT))
        return cls(shapes, loss / len(shapes), generic_loss / len(shapes))


def _cross_entropy(mask: np.ndarray, predicted: np.ndarray) -> float:
    predicted = np.clip(predicted, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return float(-(mask * np.log(predicted) + (1 - mask) * np.log(1 - predicted)).mean())


def _fits_better_mirrored(extremes: np.ndarray, mean: np.ndarray) -> bool:
    return bool(((mirrored(extremes, (0,)) - mean) ** 2).sum() < ((extremes - mean) ** 2).sum())
