"""Compute the segmentation loss of voxels with label sets (paper, Section 3.4: the L of Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

FOCAL_GAMMA = 2.0
TERMS = ("dice", "cross_entropy", "focal")


class PartialLoss(nn.Module):
    """Dice, cross-entropy and class-balanced focal loss of label sets.

    The label set of a voxel holds its possible classes. One class: the voxel is annotated. All classes: the voxel is
    unknown. Other sets, such as "not this label", are partial annotations. With S the label set and p the softmax,

    - cross-entropy is -log sum_{c in S} p_c (the marginal loss of Shi et al., MedIA 2021), averaged over the voxels
      that are not unknown;
    - the Dice of a class is computed over the voxels that are known to be of this class, or known not to be;
    - focal is the mean of -(1 - p_c)^2 log p_c over the voxels that are known to be of a class, averaged over classes.

    Each term is computed per patch, then averaged over the patches with annotations. A class without an annotated
    voxel is left out of the Dice and focal means: its Dice loss is 1 for any prediction, which would dilute the mean.
    The cross-entropy still penalises wrong predictions of this class.

    Source: Dorent et al., MICCAI 2021, Section 3.4; the mean over patches, gamma = 2 and the balance of the focal term
    are those of their public code. For one label, the terms are those of the annotated voxels alone, as in the paper.

    Args:
        smooth: added to numerator and denominator of the Dice.
    """

    def __init__(self, smooth: float = 1e-5) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: Tensor, label_sets: Tensor) -> Tensor:
        """Return the sum of the three terms, a scalar. Arguments and errors are those of `terms`."""
        return torch.stack(list(self.terms(logits, label_sets).values())).sum()

    def terms(self, logits: Tensor, label_sets: Tensor) -> dict[str, Tensor]:
        """Return the scalars "dice", "cross_entropy" and "focal", with gradients.

        Args:
            logits: (B, 1 + C, X, Y, Z), channel 0 the background, any float type.
            label_sets: (B, 1 + C, X, Y, Z) bool, the label sets.

        Raises:
            ValueError: the shapes do not fit, or the label set of a voxel is empty.
        """
        patches = [terms for terms in self.terms_by_patch(logits, label_sets) if terms is not None]
        return {name: mean_of(patches, name, len(patches), logits) for name in TERMS}

    def terms_by_patch(self, logits: Tensor, label_sets: Tensor) -> list[dict[str, Tensor] | None]:
        """Return the terms of each patch, or None for a patch without annotations. Arguments are those of `terms`."""
        _check(logits, label_sets)
        logits, label_sets = logits.flatten(2), label_sets.flatten(2)
        return [
            None if bool(label_sets[n].all()) else self._patch_terms(logits[n], label_sets[n])
            for n in range(len(label_sets))
        ]

    def _patch_terms(self, logits: Tensor, label_sets: Tensor) -> dict[str, Tensor]:
        """Compute the terms of one patch from logits and label sets (1 + C, n)."""
        known = ~label_sets.all(dim=0)
        # Selecting first keeps non-finite logits of unknown voxels out of the gradient.
        log_p, label_sets = logits[:, known].float().log_softmax(dim=0), label_sets[:, known]
        is_class = label_sets & (label_sets.sum(dim=0) == 1)
        is_ambiguous = label_sets & ~is_class
        p, voxels = log_p.exp(), is_class.sum(dim=1)
        present = voxels > 0

        overlap = (p * is_class).sum(dim=1)
        total = (p * ~is_ambiguous).sum(dim=1) + voxels
        dice = 1 - (2 * overlap + self.smooth) / (total + self.smooth)
        marginal = log_p.masked_fill(~label_sets, -torch.inf).logsumexp(dim=0)
        focal = -((1 - p) ** FOCAL_GAMMA * log_p * is_class).sum(dim=1) / voxels.clamp(min=1)
        return {
            "dice": dice[present].mean() if present.any() else dice.sum() * 0,
            "cross_entropy": -marginal.mean(),
            "focal": focal[present].mean() if present.any() else focal.sum() * 0,
        }


def mean_of(patches: Sequence[dict[str, Tensor]], name: str, count: float, logits: Tensor) -> Tensor:
    """Return the sum of a term over patches, divided by a count; 0 without patches.

    Args:
        count: number of patches; with several ranks, its mean over the ranks.
        logits: their graph is that of the result, also without patches.
    """
    if not patches:
        # An empty selection keeps the graph, and its gradient is 0 also for infinite logits.
        return logits[..., :0].float().sum()
    return torch.stack([patch[name] for patch in patches]).sum() / count


def _check(logits: Tensor, label_sets: Tensor) -> None:
    if logits.ndim != 5 or label_sets.shape != logits.shape:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} and label sets of shape {tuple(label_sets.shape)} do not fit: "
            "expected (B, 1 + C, X, Y, Z) for both."
        )
    if label_sets.dtype != torch.bool:
        raise ValueError(f"the label sets are {label_sets.dtype}; expected torch.bool, one channel a class.")
    if not label_sets.any(dim=1).all():
        raise ValueError("a voxel may be of no class; expected at least one possible class for each voxel.")
