"""Compute the training loss of a batch of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lib.data.patches import Patch, PatchBatch
from lib.losses.crf import CRFLoss
from lib.losses.partial import PartialLoss, mean_of
from lib.supervision.label_sets import label_sets_of_mask
from lib.training.batch_label_sets import LabelSetMaker
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
        self.hyperparameters = hyperparameters
        self.label_sets = LabelSetMaker(self.index, spacing_mm, hyperparameters.geodesic)
        self.partial_loss = PartialLoss()
        self.crf_loss = CRFLoss(hyperparameters.sigma_alpha, hyperparameters.sigma_beta)

    def forward(self, batch: PatchBatch, logits: torch.Tensor) -> ObjectiveValue:
        """Compute the loss of logits (B, 1 + C, X, Y, Z) for a batch."""
        h = self.hyperparameters
        probability = torch.softmax(logits.float(), dim=1)[:, 1:]
        label_sets = self.label_sets(batch, probability.detach())
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
