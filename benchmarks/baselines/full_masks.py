"""Full supervision as most trainings have it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from lib.data.scans import PatchBatch
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.objective import ObjectiveValue


class DiceCrossEntropy(nn.Module):
    """MONAI's Dice + cross-entropy on full masks; the Dice is of the foreground, over the whole batch.

    The loss of InExtremIS has a class-balanced focal term, which favours a small structure; with every voxel known that
    leads to too large masks. (The authors' code trains on full masks with the Dice alone.)

    Called like `InExtremISObjective`.
    """

    def __init__(
        self, labels: Sequence[str], spacing_mm: tuple[float, float, float], hyperparameters: Hyperparameters
    ) -> None:
        super().__init__()
        self.loss = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)

    def forward(self, batch: PatchBatch, logits: Tensor, *, guided: bool, progress: float = 0.0) -> ObjectiveValue:
        """The loss of logits (B, 1 + C, X, Y, Z) for a batch of full masks; `guided` and `progress` change nothing.

        Raises:
            ValueError: a patch without a mask.
        """
        masks = [mask for mask in batch.masks if mask is not None]
        if len(masks) < len(batch.masks):
            raise ValueError(f"{len(batch.masks) - len(masks)} patches have no mask; expected full masks")
        target = torch.stack(masks).to(logits.device)
        loss = self.loss(logits.float(), target[:, None])
        return ObjectiveValue(loss, {"dice + cross-entropy": float(loss.detach())}, target)
