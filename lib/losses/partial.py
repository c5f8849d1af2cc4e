"""Segmentation loss on the annotated voxels only (paper, Section 3.4: the L of Eq. 3)."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss, FocalLoss
from torch import Tensor, nn
from torch.nn import functional

UNKNOWN = -1
"""Target value of a voxel that nobody annotated."""


class PartialLoss(nn.Module):
    """Dice + cross-entropy + class-balanced focal loss on the annotated voxels of each patch.

    Each of the three is computed per patch and then averaged over the patches that have annotated voxels;
    patches with none contribute neither to the value nor to the gradient. A full mask is the case in which
    no voxel is `UNKNOWN`.

    Classes that are not among a patch's annotated voxels are left out of its Dice and focal means: a Dice
    of an absent class is 1 whatever the network says, so it would only dilute the mean. Wrong predictions of
    an absent class still cost, through the cross-entropy and the Dice of the background.

    Source: Dorent et al., MICCAI 2021, Section 3.4. Going by patches, gamma = 2 and the mean over the classes'
    mean focal losses are those of their public code, where the focal term of the validation alone is not balanced;
    here it always is. What absent classes do and `smooth` are choices of this implementation.

    Args:
        include_background: count the background's Dice too. On by default (as MONAI's losses): where the
            only annotated voxels are background it is the one Dice there is.
        focal_gamma: exponent of the focal term; the authors use 2.
        smooth: added to both parts of the Dice fraction.
    """

    def __init__(self, include_background: bool = True, focal_gamma: float = 2.0, smooth: float = 1e-5) -> None:
        super().__init__()
        self.include_background = include_background
        self.dice = DiceLoss(smooth_nr=smooth, smooth_dr=smooth, reduction="none")
        self.focal = FocalLoss(gamma=focal_gamma, use_softmax=True, reduction="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the three terms, a scalar.

        Args:
            logits: (B, 1 + C, X, Y, Z), channel 0 the background, any float type.
            target: (B, X, Y, Z) int64: 0 background, c label index, `UNKNOWN` not annotated.

        Raises:
            ValueError: if the shapes do not fit, or a target is neither a class nor `UNKNOWN`.
        """
        return torch.stack(list(self.terms(logits, target).values())).sum()

    def terms(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the scalars "dice", "cross_entropy" and "focal" apart, with gradients.

        Args and errors as in `forward`.
        """
        _check(logits, target)
        annotated = target != UNKNOWN
        patches = [
            self._patch_terms(logits[index][:, annotated[index]].float(), target[index][annotated[index]])
            for index in range(len(target))
            if annotated[index].any()
        ]
        if not patches:
            # An empty selection keeps the graph: the gradient is a true zero even where logits are inf.
            return dict.fromkeys(("dice", "cross_entropy", "focal"), logits[:, :, :0].float().sum())
        return {name: torch.stack([patch[name] for patch in patches]).mean() for name in patches[0]}

    def _patch_terms(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The three terms of one patch: logits (1 + C, n) and target (n,) of its n annotated voxels."""
        one_hot = functional.one_hot(target, len(logits)).T.to(logits.dtype)
        voxels = one_hot.sum(dim=1)
        present = voxels > 0
        in_dice = present.clone()
        in_dice[0] &= self.include_background

        dice = self.dice(logits.softmax(dim=0)[None], one_hot[None]).reshape(-1)
        focal = self.focal(logits[None], one_hot[None])[0].sum(dim=1) / voxels.clamp(min=1)
        return {
            "dice": dice[in_dice].sum() / in_dice.sum().clamp(min=1),
            "cross_entropy": functional.cross_entropy(logits.T, target),
            "focal": focal[present].mean(),
        }


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.ndim != 5 or target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} and target of shape {tuple(target.shape)} do not fit: "
            "expected (B, 1 + C, X, Y, Z) and (B, X, Y, Z); give the target without a channel axis."
        )
    if target.dtype != torch.int64:
        raise ValueError(f"target is {target.dtype}; expected torch.int64 class indices: call `.long()` on it.")
    lowest, highest = (int(bound) for bound in target.aminmax())
    if lowest < UNKNOWN or highest >= logits.shape[1]:
        raise ValueError(
            f"target values span [{lowest}, {highest}]; expected 0 to {logits.shape[1] - 1} for "
            f"{logits.shape[1]} channels, or {UNKNOWN} where nothing is known: check the label indices."
        )
