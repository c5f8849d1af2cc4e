"""The rows of the table: what each method learns from, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.baselines.box_constraints import BoxConstraintsObjective
from benchmarks.baselines.deepcut import deepcut_mask
from benchmarks.baselines.full_masks import DiceCrossEntropy
from benchmarks.baselines.random_walker import random_walker_mask
from benchmarks.evidence.dataset import Hand
from lib.annotations.extreme_points import ExtremePoints
from lib.geometry.volume import Volume
from lib.refinement.automatic_mask import crf_label_map
from lib.refinement.cold_start import segment_from_clicks
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.objective import InExtremISObjective

REFERENCE = "inextremis"
"""The row that the others are compared with."""

CLICKS_S, MASK_S = 37, 477
"""Annotation time of a scan (paper, Section 4)."""

Objective = Callable[[Sequence[str], tuple[float, float, float], Hyperparameters], Any]

PseudoMask = Callable[[Volume, ExtremePoints, np.ndarray | None, int], np.ndarray]
"""From an image, clicks, the network's foreground probability (X, Y, Z), None before the first training, and the box
margin in voxels of the image, a mask (X, Y, Z) bool to train on."""

Refinement = Callable[[Volume, np.ndarray], np.ndarray]
"""From an image and the network's foreground probability (X, Y, Z) to a mask (X, Y, Z) bool."""


@dataclass(frozen=True)
class Row:
    """A method of the table.

    Attributes:
        title: as in the paper, where it is there.
        changes: hyper-parameters that differ from the preset's.
        hand: whose clicks are learnt from; None for full masks.
        scans: how many training scans are annotated; None for all.
        equal_time: as many scans as full masks can be drawn of in the time of clicks on all.
        objective: of the training.
        pseudo_mask: makes full masks of the clicks before each round of the training.
        rounds: trainings one after the other, which share the iterations.
        network_of: name of the row whose network is used; nothing is trained then.
        refinement: of the network's output; None takes the more probable class.
    """

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    hand: Hand | None = "annotator"
    scans: int | None = None
    equal_time: bool = False
    objective: Objective = InExtremISObjective
    pseudo_mask: PseudoMask | None = None
    rounds: int = 1
    network_of: str | None = None
    refinement: Refinement | None = None

    @property
    def seconds_a_scan(self) -> int:
        return MASK_S if self.hand is None else CLICKS_S

    def training_scans(self, available: int) -> int:
        """How many of the available scans the row is trained on, at least 1."""
        if self.equal_time:
            return max(1, round(available * CLICKS_S / MASK_S))
        return available if self.scans is None else min(self.scans, available)


def _random_walker(volume: Volume, points: ExtremePoints, probability: np.ndarray | None, margin: int) -> np.ndarray:
    return random_walker_mask(
        volume.array,
        points,
        volume.geometry.spacing_mm,
        margin_voxels=margin,
        foreground_probability=probability,
    )


def _deepcut(volume: Volume, points: ExtremePoints, probability: np.ndarray | None, margin: int) -> np.ndarray:
    return deepcut_mask(volume.array, probability, points, margin_voxels=margin)


def _click_mask(volume: Volume, points: ExtremePoints, probability: np.ndarray | None, margin: int) -> np.ndarray:
    return segment_from_clicks(
        volume.array, points, volume.geometry.spacing_mm, foreground_probability=probability, trust=0.5
    )


def _dense_crf(volume: Volume, probability: np.ndarray) -> np.ndarray:
    return crf_label_map(volume.array, probability[None], volume.geometry.spacing_mm) > 0


TABLE_1: dict[str, Row] = {
    "gradient": Row("Gradient geodesic", {"geodesic": "gradient", "crf_weight": 0}),
    "gradient_euclidean": Row("Gradient + Euclidean geodesic", {"geodesic": "gradient_euclidean", "crf_weight": 0}),
    "deep": Row("Deep geodesic", {"geodesic": "deep", "crf_weight": 0}),
    "inextremis": Row("Deep geodesic + CRF (InExtremIS)"),
    "simulated": Row("Simulated extreme points, r = 0 (InExtremIS)", {"box_margin": 0}, hand="exact"),
    "disturbed": Row("Disturbed extreme points (InExtremIS)", hand="unsteady"),
    "full_equal_time": Row("Fully supervised, equal annotation time", {"crf_weight": 0}, hand=None, equal_time=True),
    "full": Row("Fully supervised, unlimited", {"crf_weight": 0}, hand=None),
    "deepcut": Row("DeepCut", {"crf_weight": 0}, pseudo_mask=_deepcut, rounds=3),
    "box_constraints": Row("Bounding box constraints", {"crf_weight": 0}, objective=BoxConstraintsObjective),
    "random_walker": Row("Random walker pseudo-masks", {"crf_weight": 0}, pseudo_mask=_random_walker, rounds=3),
    "scribble_crf": Row("Extreme points + CRF, no geodesics", {"geodesic": "none"}),
}

ABLATIONS: dict[str, Row] = {
    "gradient_crf": Row("Gradient geodesic + CRF", {"geodesic": "gradient"}),
    "gradient_euclidean_crf": Row("Gradient + Euclidean geodesic + CRF", {"geodesic": "gradient_euclidean"}),
    "test_time_crf": Row("InExtremIS + dense CRF at test time", network_of="inextremis", refinement=_dense_crf),
    "geodesic_bands": Row("InExtremIS, bands of 1 voxel around geodesics", {"geodesic_band": 1}),
    "click_masks": Row("Click masks as pseudo-masks", {"crf_weight": 0}, pseudo_mask=_click_mask),
    "click_masks_crf": Row("Click masks as pseudo-masks + CRF", pseudo_mask=_click_mask),
    "self_training": Row("Click masks, then click masks with the network", pseudo_mask=_click_mask, rounds=2),
    "no_focal": Row("InExtremIS without the focal loss", {"focal_weight": 0}),
    "focal_decay": Row("InExtremIS, the focal loss fading out", {"focal_schedule": "linear"}),
    "focal_decay_crf": Row(
        "InExtremIS, the focal loss fading out + dense CRF at test time",
        network_of="focal_decay",
        refinement=_dense_crf,
    ),
    "paper_crf": Row("InExtremIS, the paper's CRF scales", {"crf_weight": 1e-4, "sigma_beta": 0.05}),
    "strong_crf": Row("InExtremIS, ten times the CRF weight", {"crf_weight": 1e-2}),
    "paper_optimizer": Row(
        "InExtremIS, the paper's optimiser", {"optimizer": "sgd", "momentum": 0.99, "learning_rate": 0.01}
    ),
    "full_dice_ce": Row("Fully supervised, Dice + cross-entropy", hand=None, objective=DiceCrossEntropy),
    "full_equal_time_dice_ce": Row(
        "Fully supervised, equal annotation time, Dice + cross-entropy",
        hand=None,
        equal_time=True,
        objective=DiceCrossEntropy,
    ),
    "full_crf": Row("Fully supervised + dense CRF at test time", network_of="full", refinement=_dense_crf),
    "full_dice_ce_crf": Row(
        "Fully supervised, Dice + cross-entropy + dense CRF at test time",
        network_of="full_dice_ce",
        refinement=_dense_crf,
    ),
    "full_equal_time_crf": Row(
        "Fully supervised, equal annotation time + dense CRF at test time",
        network_of="full_equal_time",
        refinement=_dense_crf,
    ),
}

CURVE: dict[str, Row] = {
    **{f"full_{n}": Row(f"Fully supervised, {n} scans", {"crf_weight": 0}, hand=None, scans=n) for n in (2, 8, 16)},
    **{f"inextremis_{n}": Row(f"InExtremIS, {n} scans", scans=n) for n in (12, 24)},
}
"""More annotation times, for the curve."""

ROWS: dict[str, Row] = TABLE_1 | ABLATIONS | CURVE
