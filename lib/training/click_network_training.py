"""Train a click network on accepted masks, within a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import nn
from torch.nn import functional

from lib.annotations.simulated_clicks import largest_component
from lib.clickmask.box_frame import sample_positions
from lib.clickmask.click_network import ClickNetwork, click_blobs, network_input
from lib.clickmask.shape_atlas import Shape, ShapeAtlas
from lib.geometry.boxes import Box
from lib.geometry.image_geometry import Spacing

logger = logging.getLogger(__name__)

MIN_MASKS = 4
"""With fewer masks, a network is not better than the atlas."""

MIN_EXAMPLES_TO_HOLD_OUT = 8
"""With at least this many masks, every fifth is held out to test the network."""

MIN_LOSS_REDUCTION = 0.06
"""Share by which the network must lower the loss on held-out masks."""

SECONDS = 45.0

BATCH, LEARNING_RATE, WARM_UP, WEIGHT_DECAY, GRADIENT_CLIP = 2, 3e-3, 20, 0.05, 5.0
CROSS_ENTROPY_WEIGHT = 4.0
MAX_ROTATION_DEG, MAX_LOG_SCALING, CLICK_ERROR_VOXELS = 12.0, 0.15, 0.6
CORRECTED_SHARE, CORRECTION_SHARE = 0.5, 0.6
SEEN_CONTEXT = 0.15
"""Margin that a click request reads around the box, as a share of its extent; beyond, border voxels are repeated."""

MARGIN = 0.6
"""Margin that is kept around a structure for rotated and scaled boxes, as a share of the extent of the box."""


class _Drawn(NamedTuple):
    """Image and mask (S, S, S) in the frame of a box, and positions (3, 2, 3) of the clicks that define the box."""

    image: np.ndarray
    mask: np.ndarray
    extremes: np.ndarray


@dataclass(frozen=True, eq=False)
class ClickExample:
    """Accepted mask with its image; axes towards right, anterior, superior.

    Attributes:
        image: (X, Y, Z) float32.
        mask: (X, Y, Z) bool, one component.
        surface: (N, 3) voxels of the outermost layer of the mask.
        spacing_mm: (3,).
        shape: shape of the mask, for atlases.
    """

    image: np.ndarray
    mask: np.ndarray
    surface: np.ndarray
    spacing_mm: np.ndarray
    shape: Shape

    @classmethod
    def of(cls, image: np.ndarray, mask: np.ndarray, spacing_mm: Spacing, shape: Shape) -> ClickExample:
        """Crop an image (X, Y, Z) and a non-empty mask (X, Y, Z) bool to the surroundings of the mask."""
        tight = Box.around(np.argwhere(mask))
        i, j, k = (int(np.ceil(MARGIN * size)) + 1 for size in tight.shape)
        part = tight.relaxed((i, j, k), mask.shape).slices
        component = largest_component(mask[part])
        surface = np.argwhere(component & ~ndimage.binary_erosion(component))
        return cls(np.array(image[part], np.float32), component, surface, np.array(spacing_mm), shape)

    def drawn(self, rng: np.random.Generator) -> _Drawn:
        """Draw a random rotation, scaling and error of the clicks."""
        middle, turn = self.surface.mean(axis=0), self._turn(rng)
        ends = _extremes((self.surface - middle) @ turn.T, rng)
        ends += rng.normal(0, CLICK_ERROR_VOXELS, ends.shape)
        low, high = ends.reshape(6, 3).min(axis=0) - 0.5, ends.reshape(6, 3).max(axis=0) + 0.5
        high = np.maximum(high, low + 2)
        seen = self._where(np.clip(sample_positions(), -SEEN_CONTEXT, 1 + SEEN_CONTEXT), low, high, turn, middle)
        image = ndimage.map_coordinates(self.image, seen, order=1, mode="nearest")
        where = self._where(sample_positions(), low, high, turn, middle)
        mask = ndimage.map_coordinates(self.mask.astype(np.float32), where, order=1)
        return _Drawn(image, mask, (ends - low) / (high - low))

    def _turn(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a linear map (3, 3) from voxels to voxels: a rotation and a scaling in mm."""
        angles = rng.uniform(-MAX_ROTATION_DEG, MAX_ROTATION_DEG, 3)
        scaling = np.exp(rng.uniform(-MAX_LOG_SCALING, MAX_LOG_SCALING, 3))
        in_mm = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scaling
        turn: np.ndarray = in_mm * self.spacing_mm[None, :] / self.spacing_mm[:, None]
        return turn

    @staticmethod
    def _where(
        positions: np.ndarray, low: np.ndarray, high: np.ndarray, turn: np.ndarray, middle: np.ndarray
    ) -> np.ndarray:
        """Return voxels (3, S, S, S) of the image for positions (S,) along each axis of a box in the turned image."""
        lines = [low[axis] + positions * (high[axis] - low[axis]) for axis in range(3)]
        turned = np.stack(np.meshgrid(*lines, indexing="ij"))
        return np.einsum("ab,bxyz->axyz", np.linalg.inv(turn), turned) + middle[:, None, None, None]


def train_click_network(examples: Sequence[ClickExample], seconds: float, seed: int = 0) -> ClickNetwork | None:
    """Train on masks of one label.

    Args:
        seconds: wall time of the training.
        seed: of initialisation and sampling.

    Returns:
        The network; None with fewer than `MIN_MASKS` masks, if their atlas has no weight, or if the network does not
        lower the loss on held-out masks.
    """
    if len(examples) < MIN_MASKS:
        return None
    if ShapeAtlas.of([e.shape for e in examples]).weight == 0:
        return None
    has_held_out = len(examples) >= MIN_EXAMPLES_TO_HOLD_OUT
    held_out = list(examples[::5]) if has_held_out else []
    training_examples = [example for n, example in enumerate(examples) if not has_held_out or n % 5]
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ClickNetwork().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        _train(network, training_examples, seconds, rng)
    network.eval()
    if not all(bool(torch.isfinite(weights).all()) for weights in network.parameters()):
        logger.warning("The weights of a click network became infinite; it is not used.")
        return None
    if held_out and not _helps(network, held_out, ShapeAtlas.of([e.shape for e in training_examples]), rng):
        return None
    return network


def _train(network: ClickNetwork, examples: Sequence[ClickExample], seconds: float, rng: np.random.Generator) -> None:
    # Each structure gets the atlas of the others, like a new structure in use.
    atlases = [ShapeAtlas.of([e.shape for m, e in enumerate(examples) if m != n]) for n in range(len(examples))]
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    start, step = time.monotonic(), 0
    while (used := (time.monotonic() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (1 - used) ** 0.9
        chosen = rng.integers(len(examples), size=BATCH)
        batch = [_example_input(examples[n].drawn(rng), atlases[n], rng) for n in chosen]
        inputs, log_odds, masks = (torch.from_numpy(np.stack(of)) for of in zip(*batch, strict=True))
        logits = network(inputs.contiguous(memory_format=torch.channels_last_3d)) + log_odds
        optimizer.zero_grad()
        _loss(logits, masks).backward()
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP)
        optimizer.step()
        step += 1


def _example_input(
    drawn: _Drawn, atlas: ShapeAtlas, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make inputs (5, S, S, S), log-odds and mask (S, S, S), float32; change contrast and add corrective clicks."""
    none = np.empty((0, 3))
    inputs, log_odds = network_input(drawn.image, drawn.extremes, atlas, none, none)
    if rng.random() < CORRECTED_SHARE:
        on, off = _corrections(log_odds > 0, drawn.mask > 0.5, rng)
        inputs[3], inputs[4] = np.maximum(inputs[3], click_blobs(on)), click_blobs(off)
    gamma, noise = np.exp(rng.uniform(-0.4, 0.4)), rng.uniform(0, 0.05)
    inputs[0] = (inputs[0] + 0.5) ** gamma - 0.5 + rng.normal(0, noise, inputs[0].shape)
    return inputs, log_odds, drawn.mask.astype(np.float32)


def _corrections(found: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw positions (n, 3) of clicks deepest in false negatives and false positives (S, S, S); n is 0 or 1."""
    clicks = []
    for wrong in (truth & ~found, found & ~truth):
        deepest: list[tuple[int, ...]] = []
        if wrong.any() and rng.random() < CORRECTION_SHARE:
            deepest = [np.unravel_index(ndimage.distance_transform_edt(wrong).argmax(), wrong.shape)]
        clicks.append(sample_positions()[np.array(deepest, int).reshape(-1, 3)])
    return clicks[0], clicks[1]


def _loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Compute cross-entropy plus Dice loss of logits and masks (B, S, S, S)."""
    probability = torch.sigmoid(logits)
    overlap, total = (probability * masks).sum((1, 2, 3)), (probability + masks).sum((1, 2, 3))
    dice_loss = 1 - (2 * overlap + 1) / (total + 1)
    return CROSS_ENTROPY_WEIGHT * functional.binary_cross_entropy_with_logits(logits, masks) + dice_loss.mean()


def _helps(
    network: ClickNetwork, held_out: Sequence[ClickExample], atlas: ShapeAtlas, rng: np.random.Generator
) -> bool:
    """Tell whether the network lowers the loss on held-out structures by `MIN_LOSS_REDUCTION`."""
    losses = np.zeros(2)
    none = np.empty((0, 3))
    for example in held_out:
        drawn = example.drawn(rng)
        inputs, log_odds = network_input(drawn.image, drawn.extremes, atlas, none, none)
        mask = torch.from_numpy(drawn.mask.astype(np.float32))
        for n, logits in enumerate((log_odds, log_odds + network.correction(inputs))):
            losses[n] += float(_loss(torch.from_numpy(logits)[None], mask[None]))
    logger.info("A click network changes the loss on %d held-out masks from %.3f to %.3f.", len(held_out), *losses)
    return bool(losses[1] < (1 - MIN_LOSS_REDUCTION) * losses[0])


def _extremes(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw extreme points (3, 2, 3), each from the points (N, 3) within half a voxel of the extreme position."""
    ends = np.empty((3, 2, 3))
    for axis in range(3):
        for side, sign in enumerate((-1, 1)):
            along = sign * points[:, axis]
            farthest = points[along >= along.max() - 0.5]
            ends[axis, side] = farthest[rng.integers(len(farthest))]
    return ends


def seconds_by_label(counts: Mapping[str, int], minutes: float) -> dict[str, float]:
    """Divide the wall time among the networks of labels with new masks, most masks first.

    Args:
        counts: number of new masks of each label.
        minutes: of the training, of which the networks get at most a fifth; 0 for no limit.
    """
    total = np.inf if minutes == 0 else 60 * minutes / 5
    most_first = sorted((label for label in counts if counts[label] > 0), key=lambda label: -counts[label])
    chosen = most_first[: max(1, int(total // SECONDS))] if np.isfinite(total) else most_first
    return {label: min(SECONDS, total / len(chosen)) for label in chosen}
