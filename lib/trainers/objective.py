"""The objective of the paper (Eq. 3) on a batch of patches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lib.annotations.extreme_points import ExtremePoints
from lib.data.scans import PatchBatch
from lib.losses.crf import CRFLoss
from lib.losses.partial import PartialLoss
from lib.supervision.boxes import Box
from lib.supervision.geodesic_bands import geodesic_band
from lib.supervision.geodesics import batch_extreme_point_geodesics
from lib.supervision.partial_target import StructureSupervision, partial_target
from lib.trainers.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class ObjectiveValue:
    """A loss with its parts, and the target it was computed with.

    Attributes:
        loss: scalar with gradient.
        terms: parts of the loss by name, without gradient.
        target: (B, X, Y, Z) int64; label index, 0 background, -1 unknown.
    """

    loss: torch.Tensor
    terms: dict[str, float]
    target: torch.Tensor


class InExtremISObjective(nn.Module):
    """Partial loss on geodesics and outside the relaxed boxes, and the CRF term (paper, Eq. 3).

    Args:
        labels: names in order of their index 1, 2, ...
        spacing_mm: of the patches.
    """

    def __init__(
        self, labels: Sequence[str], spacing_mm: tuple[float, float, float], hyperparameters: Hyperparameters
    ) -> None:
        super().__init__()
        self.index = {label: index for index, label in enumerate(labels, start=1)}
        self.spacing_mm = spacing_mm
        self.hyperparameters = hyperparameters
        self.partial_loss = PartialLoss()
        self.crf_loss = CRFLoss(hyperparameters.sigma_alpha, hyperparameters.sigma_beta)

    def forward(
        self, batch: PatchBatch, logits: torch.Tensor, *, guided: bool, progress: float = 0.0
    ) -> ObjectiveValue:
        """The loss of logits (B, 1 + C, X, Y, Z) for a batch.

        Args:
            guided: let the network's background probability guide the geodesics (paper, Eq. 2, deep term).
            progress: share of the training run that is over, in [0, 1].
        """
        probability = torch.softmax(logits.float(), dim=1)[:, 1:]
        target = self.target(batch, probability.detach() if guided else None).to(logits.device)
        terms = self.partial_loss.terms(logits, target)
        terms["focal"] = self._focal_weight(progress) * terms["focal"]
        if self.hyperparameters.crf_weight > 0:
            image = batch.image.to(logits.device)
            terms["crf"] = self.hyperparameters.crf_weight * self.crf_loss(image, probability)
        loss = torch.stack(list(terms.values())).sum()
        return ObjectiveValue(loss, {name: float(term.detach()) for name, term in terms.items()}, target)

    def _focal_weight(self, progress: float) -> float:
        """A balanced loss finds small structures early, and makes masks too large to the end."""
        falls = self.hyperparameters.focal_schedule == "linear"
        return self.hyperparameters.focal_weight * (1 - progress if falls else 1)

    def target(self, batch: PatchBatch, probability: torch.Tensor | None) -> torch.Tensor:
        """The partial label maps (B, X, Y, Z) int64; geodesics are guided by `probability` (B, C, X, Y, Z)."""
        clicked = [n for n, mask in enumerate(batch.masks) if mask is None]
        jobs = [(n, points) for n in clicked for points in batch.points[n]]
        geodesics = iter(self._geodesics(batch.image, jobs, probability))
        return torch.stack(
            [
                self._clicks_target(possible.numpy(), structures, geodesics) if mask is None else mask
                for possible, structures, mask in zip(batch.possible, batch.points, batch.masks, strict=True)
            ]
        )

    def _geodesics(
        self, image: torch.Tensor, jobs: Sequence[tuple[int, ExtremePoints]], probability: torch.Tensor | None
    ) -> list[list[np.ndarray]]:
        """Of each job, a patch and the clicks on one structure, the paths (n, 3) in voxels of the patch."""
        if self.hyperparameters.geodesic == "none":
            return [[np.empty((0, 3), dtype=np.int64)]] * len(jobs)
        geodesics = batch_extreme_point_geodesics(
            [image[n, 0].numpy() for n, _ in jobs],
            [points.extremes_voxel for _, points in jobs],
            [self.spacing_mm] * len(jobs),
            background_probabilities=self._background_probabilities(probability, jobs),
            euclidean=self.hyperparameters.geodesic != "gradient",
            threads=os.cpu_count() or 1,
        )
        radius, shape = self.hyperparameters.geodesic_band, tuple(image.shape[2:])
        boxes = [Box.around(points.extremes_voxel.reshape(-1, 3)) for _, points in jobs]
        return [
            [geodesic_band(path, radius, box, shape) for path in paths]
            for paths, box in zip(geodesics, boxes, strict=True)
        ]

    def _background_probabilities(
        self, probability: torch.Tensor | None, jobs: Sequence[tuple[int, ExtremePoints]]
    ) -> list[np.ndarray] | None:
        """1 - f of each job's own label (paper, Eq. 2), or None without guidance."""
        if probability is None:
            return None
        background = (1 - probability).clamp(0, 1).cpu().numpy()
        return [background[n, self.index[points.label] - 1] for n, points in jobs]

    def _clicks_target(
        self, possible: np.ndarray, structures: Sequence[ExtremePoints], geodesics: Iterator[list[np.ndarray]]
    ) -> torch.Tensor:
        supervision = [StructureSupervision(self.index[p.label], p, next(geodesics)) for p in structures]
        return torch.from_numpy(
            partial_target(
                possible,
                supervision,
                all_labels_clicked={points.label for points in structures} >= set(self.index),
            )
        )
