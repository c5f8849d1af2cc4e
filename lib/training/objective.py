"""Compute the training loss of a batch of patches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lib.annotations.extreme_points import ExtremePoints
from lib.data.patches import Patch, PatchBatch
from lib.geometry.boxes import Box
from lib.losses.crf import CRFLoss
from lib.losses.partial import PartialLoss, mean_of
from lib.supervision.geodesics import batch_extreme_point_geodesics
from lib.supervision.label_sets import StructureSupervision, label_sets_of_clicks, label_sets_of_mask, narrowed
from lib.training.hyperparameters import Hyperparameters
from lib.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class ObjectiveValue:
    """Loss with its terms and the label sets that it was computed with.

    Attributes:
        loss: scalar with gradient.
        terms: parts of the loss by name, weighted, without gradient.
        label_sets: (B, 1 + C, X, Y, Z) bool, see `lib.supervision.label_sets`.
    """

    loss: torch.Tensor
    terms: dict[str, torch.Tensor]
    label_sets: torch.Tensor


class InExtremISObjective(nn.Module):
    """Training loss, from accepted masks, clicks and click masks.

    Accepted masks supervise every voxel of their labels. Other labels are supervised by clicks: geodesics are
    foreground, voxels outside the relaxed boxes are background, and the CRF term regularises the rest (paper, Eq. 3).
    Click masks add a loss of their own, with a weight. The focal and the CRF term are computed on patches with unknown
    voxels only; patches whose voxels are all known have Dice and cross-entropy only.

    Args:
        labels: names in order of their index 1, 2, ...
        spacing_mm: of the patches.
        hyperparameters: weights of the terms, and the row of the paper's Table 1.
        ranks: processes that train together. The mean of the gradients over the ranks is the gradient of the loss of
            all batches together.
    """

    def __init__(
        self,
        labels: Sequence[str],
        spacing_mm: tuple[float, float, float],
        hyperparameters: Hyperparameters,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.ranks = ranks
        self.index = {label: index for index, label in enumerate(labels, start=1)}
        self.spacing_mm = spacing_mm
        self.hyperparameters = hyperparameters
        self.partial_loss = PartialLoss()
        self.crf_loss = CRFLoss(hyperparameters.sigma_alpha, hyperparameters.sigma_beta)

    def forward(self, batch: PatchBatch, logits: torch.Tensor, *, guided: bool = True) -> ObjectiveValue:
        """Compute the loss of logits (B, 1 + C, X, Y, Z) for a batch.

        Args:
            guided: let the network's background probability guide the geodesics (paper, Eq. 2, deep term).
        """
        h = self.hyperparameters
        probability = torch.softmax(logits.float(), dim=1)[:, 1:]
        label_sets = self.label_sets(batch, probability.detach() if guided and h.geodesic == "deep" else None)
        label_sets = label_sets.to(logits.device, non_blocking=True)
        by_patch = self.partial_loss.terms_by_patch(logits, label_sets)
        known = [terms for terms in by_patch if terms is not None]
        clicked = [n for n, patch in enumerate(batch.patches) if not self._is_masked(patch)]
        clicked_known = [terms for n in clicked if (terms := by_patch[n]) is not None]
        click_masked = self._click_mask_terms(batch, logits) if h.click_mask_weight > 0 else []
        counts = (batch.patches, clicked, known, clicked_known, click_masked)
        n, n_clicked, n_known, n_clicked_known, n_click_masked = self.ranks.mean([len(of) for of in counts])
        terms = {name: mean_of(known, name, n_known, logits) for name in ("dice", "cross_entropy")}
        terms["focal"] = n_clicked / n * h.focal_weight * mean_of(clicked_known, "focal", n_clicked_known, logits)
        if h.crf_weight > 0 and clicked:
            image = batch.image[clicked].to(logits.device)
            terms["crf"] = len(clicked) / n * h.crf_weight * self.crf_loss(image, probability[clicked])
        if h.click_mask_weight > 0:
            of_masks = [mean_of(click_masked, name, n_click_masked, logits) for name in ("dice", "cross_entropy")]
            terms["click_mask"] = h.click_mask_weight * torch.stack(of_masks).sum()
        loss = torch.stack(list(terms.values())).sum()
        return ObjectiveValue(loss, {name: term.detach() for name, term in terms.items()}, label_sets)

    def label_sets(self, batch: PatchBatch, probability: torch.Tensor | None = None) -> torch.Tensor:
        """Make the label sets (B, 1 + C, X, Y, Z) bool; `probability` (B, C, X, Y, Z) guides geodesics."""
        jobs = [
            (n, points)
            for n, patch in enumerate(batch.patches)
            for points in patch.points
            if points.label not in patch.mask_labels
        ]
        geodesics = iter(self._geodesics(batch.image, jobs, probability))
        return torch.stack(
            [
                self._patch_label_sets(patch, [next(geodesics) for m, _ in jobs if m == n])
                for n, patch in enumerate(batch.patches)
            ]
        )

    def _patch_label_sets(self, patch: Patch, geodesics: Sequence[list[np.ndarray]]) -> torch.Tensor:
        clicked = [
            (points, box)
            for points, box in zip(patch.points, patch.boxes, strict=True)
            if points.label not in patch.mask_labels
        ]
        structures = [
            StructureSupervision(self.index[points.label], points, box, paths)
            for (points, box), paths in zip(clicked, geodesics, strict=True)
        ]
        absent = [self.index[label] for label in patch.absent if label in self.index]
        label_sets = label_sets_of_clicks(patch.image.shape, len(self.index), structures, absent)
        if patch.mask is None:
            return label_sets
        covered = [self.index[label] for label in patch.mask_labels]
        return narrowed(label_sets, label_sets_of_mask(patch.mask, len(self.index), covered))

    def _is_masked(self, patch: Patch) -> bool:
        """Tell whether the class of every voxel is known."""
        return {*patch.mask_labels, *patch.absent} >= self.index.keys()

    def _click_mask_terms(self, batch: PatchBatch, logits: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Compute the terms of each patch with a click mask, for labels that no accepted mask covers."""
        label_sets = torch.ones(logits.shape, dtype=torch.bool)
        for n, patch in enumerate(batch.patches):
            if patch.click_mask is None:
                continue
            labels = [p.label for p in patch.points if p.label not in patch.mask_labels]
            covered = torch.tensor([0, *(self.index[label] for label in labels)])
            mask = torch.where(torch.isin(patch.click_mask, covered), patch.click_mask, 0)
            label_sets[n] = label_sets_of_mask(mask, len(self.index), covered[1:].tolist())
        by_patch = self.partial_loss.terms_by_patch(logits, label_sets.to(logits.device, non_blocking=True))
        return [terms for terms in by_patch if terms is not None]

    def _geodesics(
        self, image: torch.Tensor, jobs: Sequence[tuple[int, ExtremePoints]], probability: torch.Tensor | None
    ) -> list[list[np.ndarray]]:
        """Return the paths (n, 3), in voxels of the patch, of each job: a patch and the clicks on one structure."""
        if self.hyperparameters.geodesic == "none":
            return [[np.empty((0, 3), dtype=np.int64)]] * len(jobs)
        return batch_extreme_point_geodesics(
            [image[n, 0].numpy() for n, _ in jobs],
            [points.extremes_voxel for _, points in jobs],
            [self.spacing_mm] * len(jobs),
            background_probabilities=self._background_probabilities(probability, jobs, image.shape[2:]),
            euclidean=self.hyperparameters.geodesic != "gradient",
            threads=os.cpu_count() or 1,
        )

    def _background_probabilities(
        self, probability: torch.Tensor | None, jobs: Sequence[tuple[int, ExtremePoints]], shape: Sequence[int]
    ) -> list[np.ndarray] | None:
        """Return 1 - f of the label of each job (paper, Eq. 2), or None without guidance.

        Only the tight boxes, which contain the paths, are copied from the device; elsewhere the value is 1.
        """
        if probability is None:
            return None
        backgrounds = []
        for n, points in jobs:
            box = Box.around(points.extremes_voxel.reshape(-1, 3)).relaxed(0, tuple(shape))
            background = np.ones(tuple(shape), dtype=np.float32)
            inside = probability[n, self.index[points.label] - 1][box.slices]
            background[box.slices] = (1 - inside).clamp(0, 1).cpu().numpy()
            backgrounds.append(background)
        return backgrounds
