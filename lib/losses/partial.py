"""Compute the segmentation loss of voxels with label sets (paper, Section 3.4: the L of Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

FOCAL_GAMMA = 2.0
TERMS = ("dice", "cross_entropy", "focal")


class PartialLoss(nn.Module):
    """Dice, cross-entropy and class-balanced focal loss of label sets.

    A voxel's label set holds the classes that it may be. One class: the voxel is annotated. All classes: nothing is
    known. In between, such as "not this label": a part is known. With S the label set and p the softmax,

    - cross-entropy is -log sum_{c in S} p_c (the marginal loss of Shi et al., MedIA 2021), averaged over the voxels
      of which anything is known;
    - the Dice of a class is over the voxels that are known to be of it or not to be;
    - focal is the mean of -(1 - p_c)^2 log p_c over the voxels that are known to be of a class, averaged over classes.

    Each is computed per patch and then averaged over the patches of which anything is known. A class that no voxel is
    known to be of is left out of the Dice and focal means: a Dice of an absent class is 1 whatever the network says,
    so it would only dilute the mean. Wrong predictions of it still cost, through the cross-entropy.

    Source: Dorent et al., MICCAI 2021, Section 3.4; going by patches, gamma = 2 and the balance of the focal term are
    those of their public code. For one label these are the terms of the annotated voxels alone, as in the paper.

    Args:
        smooth: added to both parts of the Dice fraction.
    """

    def __init__(self, smooth: float = 1e-5) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: Tensor, label_sets: Tensor) -> Tensor:
        """Return the sum of the three terms, a scalar. Args and errors as in `terms`."""
        return torch.stack(list(self.terms(logits, label_sets).values())).sum()

    def terms(self, logits: Tensor, label_sets: Tensor) -> dict[str, Tensor]:
        """Return the scalars "dice", "cross_entropy" and "focal", with gradients.

        Args:
            logits: (B, 1 + C, X, Y, Z), channel 0 the background, any float type.
            label_sets: (B, 1 + C, X, Y, Z) bool, the label sets.

        Raises:
            ValueError: the shapes do not fit, or a voxel may be of no class.
        """
        patches = [terms for terms in self.terms_by_patch(logits, label_sets) if terms is not None]
        return {name: mean_of(patches, name, len(patches), logits) for name in TERMS}

    def terms_by_patch(self, logits: Tensor, label_sets: Tensor) -> list[dict[str, Tensor] | None]:
        """Return the terms of each patch, None of one of which nothing is known. Args and errors as in `terms`."""
        _check(logits, label_sets)
        logits, label_sets = logits.flatten(2), label_sets.flatten(2)
        return [
            None if bool(label_sets[n].all()) else self._patch_terms(logits[n], label_sets[n])
            for n in range(len(label_sets))
        ]

    def _patch_terms(self, logits: Tensor, label_sets: Tensor) -> dict[str, Tensor]:
        """The terms of one patch: logits and label sets (1 + C, n)."""
        known = ~label_sets.all(dim=0)
        # The selection comes first: what is not finite where nothing is known then has no gradient.
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
    """Return the sum of a term over patches, divided by a count; 0 where there is none.

    Args:
        count: of the patches; where several ranks train together, its mean over the ranks.
        logits: whose graph a sum of nothing belongs to.
    """
    if not patches:
        # An empty selection keeps the graph: the gradient is a true zero even where logits are inf.
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
