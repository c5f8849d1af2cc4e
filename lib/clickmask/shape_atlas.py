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
"""Weight of the generic prior, as a number of masks."""

MIN_GAIN = 0.25
"""Minimum reduction of the generic prior's loss by an atlas, as a share; below, the atlas has weight 0. Typical values:
hippocampi 0.5 to 0.6, sarcomas 0.08 to 0.18 (where an atlas costs 0.01 of Dice), random blobs 0.01 to 0.05."""

MIRRORING_GAIN = 0.97
"""Shapes are mirrored if that lowers the loss to less than this share."""

MAX_SHAPES = 48
"""Maximum number of shapes; more cost time and improve little."""

MIN_PROBABILITY = 0.01


class Shape(NamedTuple):
    """Structure in the frame of its box.

    Attributes:
        mask: (SIDE, SIDE, SIDE) float32 in [0, 1].
        extremes: (3, 2, 3) positions of its extreme points, [axis, low / high end].
    """

    mask: np.ndarray
    extremes: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, extremes_voxel: np.ndarray, affine_ras: np.ndarray) -> Shape:
        """Create from a mask (X, Y, Z) bool, extreme points (3, 2, 3) in its voxels and its affine (4, 4)."""
        frame = BoxFrame.around(extremes_voxel, affine_ras)
        padded = np.pad(mask, 1)  # in a frame, the outermost voxels are repeated
        return cls(frame.sampled(padded, np.full(3, -1)), frame.extremes(extremes_voxel))

    @classmethod
    def of_mask(cls, mask: np.ndarray, affine_ras: np.ndarray) -> Shape:
        """Create from the largest component of a mask (X, Y, Z) bool that is not empty, in the frame of its own box."""
        component = largest_component(mask)
        component = component[Box.around(np.argwhere(component)).slices]
        return cls.of(component, mask_extremes(component), affine_ras)

    @property
    def mirrored(self) -> Shape:
        """The shape with left and right exchanged."""
        return Shape(self.mask[::-1], mirrored(self.extremes, (0,)))


@dataclass(frozen=True, eq=False)
class ShapeAtlas:
    """Mean of some shapes, and its weight relative to the generic prior.

    Attributes:
        mean: (SIDE, SIDE, SIDE) float32 in [0, 1].
        extremes: (3, 2, 3) mean positions of the extreme points.
        weight: of the mean relative to the generic prior, at least 0.
        count: number of shapes.
        mirrors: True if left and right are mirrored where the extreme points then fit better.
        gain: relative reduction of the generic prior's loss on left-out masks; 0 for an atlas of one shape.
    """

    mean: np.ndarray
    extremes: np.ndarray
    weight: float
    count: int
    mirrors: bool = False
    gain: float = 0.0

    @classmethod
    def of(cls, shapes: Sequence[Shape]) -> ShapeAtlas:
        """Create an atlas from the last `MAX_SHAPES` shapes.

        Weight and mirroring are those that predict each shape best from the others (leave one out). The weight is 0 if
        the shapes have too little in common. The weight of an atlas of one shape is always positive.

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
        """Create an atlas with a given weight."""
        mean = np.mean([shape.mask for shape in shapes], axis=0, dtype=np.float32)
        extremes = np.mean([shape.extremes for shape in shapes], axis=0)
        return cls(mean, extremes, weight, len(shapes), mirrors)

    def probability(self, generic: np.ndarray, frame: BoxFrame, extremes: np.ndarray, grid: WorkingGrid) -> np.ndarray:
        """Return the foreground probability (X, Y, Z) on a grid of atlas and generic prior combined.

        Args:
            generic: (X, Y, Z) of the generic prior.
            frame: of the clicked structure.
            extremes: (3, 2, 3) positions of its extreme points.
        """
        return self.joined(generic, frame.on_grid(self.mean_for(extremes), grid))

    def mean_for(self, extremes: np.ndarray) -> np.ndarray:
        """Return the mean (SIDE, SIDE, SIDE), mirrored if that fits extreme points (3, 2, 3) better."""
        return self.mean[::-1] if self.mirrors and _fits_better_mirrored(extremes, self.extremes) else self.mean

    def joined(self, generic: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Return the weighted mean of the probabilities of the generic prior and of the atlas."""
        probability = (generic + self.weight * mean) / (1 + self.weight)
        return np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)

    @property
    def digest(self) -> str:
        """Digest of everything that a mask depends on."""
        content = self.mean.tobytes() + self.extremes.tobytes() + repr((self.weight, self.mirrors)).encode()
        return hashlib.sha256(content).hexdigest()[:16]


def aligned(shapes: Sequence[Shape]) -> list[Shape]:
    """Mirror shapes so that their extreme points match those of the first one."""
    mean = shapes[0].extremes
    for _ in range(3):
        turned = [s.mirrored if _fits_better_mirrored(s.extremes, mean) else s for s in shapes]
        mean = np.mean([s.extremes for s in turned], axis=0)
    return turned


def generic_probability(extremes: np.ndarray) -> np.ndarray:
    """Return the shape prior of extreme points (3, 2, 3) in the frame, as probability (SIDE, SIDE, SIDE)."""
    gauge = extreme_point_gauge(sample_indices(extremes), (SIDE, SIDE, SIDE), shrinkage=SHRINKAGE)
    return expit(PRIOR_STRENGTH * (1 - gauge))


def mirrored(extremes: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Mirror positions (3, 2, 3) of extreme points along some axes."""
    turned = extremes.copy()
    for axis in axes:
        turned[..., axis] = 1 - turned[..., axis]
        turned[axis] = turned[axis, ::-1]
    return turned


def likeness(extremes: Sequence[np.ndarray]) -> float:
    """Measure the similarity of structures by their extreme points (3, 2, 3) in their frames.

    It is the mean distance between the extreme points of two structures when one of them is mirrored along some axes,
    divided by the distance when neither is. It is about 1 if the shape does not depend on the anatomical direction, as
    with most tumours.

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
    """Leave-one-out prediction of each shape from the others.

    Attributes:
        loss: mean cross-entropy of the generic prior combined with the other shapes.
        generic_loss: mean cross-entropy of the generic prior alone.
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
