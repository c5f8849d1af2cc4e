"""Bounding box constraints: a network learns from a box by inequalities that its mask must satisfy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.annotations.extreme_points import ExtremePoints
from lib.data.patches import PatchBatch
from lib.geometry.boxes import Box
from lib.losses.partial import PartialLoss
from lib.training.hyperparameters import Hyperparameters
from lib.training.objective import ObjectiveValue


@dataclass(frozen=True)
class ConstraintOptions:
    """What a mask in a box must satisfy, and how hard it is pressed.

    Attributes:
        slab_voxels: w; every slab of so many planes inside the box, along each axis, holds at least w voxels of the
            structure. More than 1, as the faces of a box from a hand's clicks may miss the structure.
        size_share: least and largest share of the box that is structure; a ball fills 0.52 of its box. Much below a
            half, probabilities below a half all over the box would do, and no voxel would be taken for structure.
        weight: of the constraints beside the emptiness of what is outside, as in the papers, whose 1e-4 and 1e-2 are
            for sums of voxels. At 1 a network learns but where structures usually are: it fills the same place of
            each scan, as a constraint that is not met drowns what the voxels outside say.
        first_t, t_growth: the barrier's t, and its factor each `iterations_per_step` iterations (the papers: 5, 1.1,
            after an epoch).
        largest_t: where t stops growing, after 48 steps; the papers train for 100 epochs.
    """

    slab_voxels: int = 3
    size_share: tuple[float, float] = (0.45, 0.65)
    weight: float = 0.1
    first_t: float = 5.0
    t_growth: float = 1.1
    largest_t: float = 500.0
    iterations_per_step: int = 20


class BoxConstraintsObjective(nn.Module):
    """Emptiness outside of the box; tightness and size inside, by log-barrier extensions.

    Source: Kervadec et al., MIDL 2020 (Bounding boxes for weakly supervised segmentation: Global constraints get close
    to full supervision), and their log-barrier extensions (arXiv 1904.04205). They have a box for every 2D slice and
    segments of lines in it; here the box is 3D, and slabs of planes take the place of segments, as a line through a 3D
    box need not meet the structure. Sums are divided by what is asked for, so that a constraint weighs the same in
    a small box and in a large one. A box that the patch cuts is not constrained, as the structure may lie in the rest.
    Emptiness, a barrier too in their best variant and cross-entropy in another, is the app's partial loss here,
    outside of the relaxed box: it is what the other methods of the comparison learn the background from. The shares
    of the box, 0.5 to 0.9 with them, are those of a 3D structure. Boxes are taken as they come: those of patches that
    were turned or bent are not tight.

    Called like `InExtremISObjective`; the class of the first label is the structure.

    Args:
        labels: one name.
        spacing_mm: of the patches; not looked at, as constraints count voxels.

    Raises:
        ValueError: several labels.
    """

    def __init__(
        self,
        labels: Sequence[str],
        spacing_mm: tuple[float, float, float],
        hyperparameters: Hyperparameters,
        options: ConstraintOptions = ConstraintOptions(),
    ) -> None:
        super().__init__()
        if len(labels) != 1:
            raise ValueError(f"labels are {', '.join(labels)}; expected one: these constraints are for one structure")
        self.options = options
        self.partial_loss = PartialLoss()
        self.iteration = 0

    @property
    def t(self) -> float:
        """The barrier's t, by the calls that had a gradient."""
        o = self.options
        return min(o.first_t * o.t_growth ** (self.iteration // o.iterations_per_step), o.largest_t)

    def forward(self, batch: PatchBatch, logits: Tensor) -> ObjectiveValue:
        """The loss of logits (B, 2, X, Y, Z) for a batch."""
        label_sets = torch.ones(logits.shape, dtype=torch.bool)
        for n, patch in enumerate(batch.patches):
            for box in patch.boxes:
                label_sets[n, 1] &= box
        label_sets = label_sets.to(logits.device)
        probability = torch.softmax(logits.float(), dim=1)[:, 1]
        violations = [
            constraint
            for foreground, patch in zip(probability, batch.patches, strict=True)
            for points in patch.points
            for constraint in self._violations(foreground, points)
        ]
        terms = self.partial_loss.terms(logits, label_sets)
        if violations:
            barriers = [log_barrier(z, self.t).mean() for z in violations]
            terms["constraints"] = self.options.weight * torch.stack(barriers).mean()
        self.iteration += torch.is_grad_enabled()
        loss = torch.stack(list(terms.values())).sum()
        return ObjectiveValue(loss, {name: term.detach() for name, term in terms.items()}, label_sets)

    def _violations(self, foreground: Tensor, points: ExtremePoints) -> Iterator[Tensor]:
        """z, at most 0 where a constraint is met: of the slabs, of the sizes."""
        box = Box.around(points.foreground_voxel)
        if box.relaxed(0, foreground.shape) != box:
            return
        inside = foreground[box.slices]
        yield torch.cat([slab_violations(inside, axis, self.options.slab_voxels) for axis in range(3)])
        least, largest = self.options.size_share
        share = inside.mean()
        yield torch.stack([1 - share / least, share / largest - 1])


def slab_violations(inside: Tensor, axis: int, slab_voxels: int) -> Tensor:
    """1 - sum(p) / w of each slab of w planes of a box (X, Y, Z) along an axis; the last may be thinner."""
    of_planes = inside.sum(dim=[other for other in range(3) if other != axis])
    return torch.stack([1 - slab.sum() / len(slab) for slab in of_planes.split(slab_voxels)])


def log_barrier(z: Tensor, t: float) -> Tensor:
    """The log-barrier extension of z <= 0, elementwise: -log(-z) / t below -1/t^2, and its tangent above.

    Source: Kervadec et al., arXiv 1904.04205, Eq. 8. Finite and with a gradient everywhere.
    """
    joint = 1 / t**2
    # Clamped, as the gradient of the branch that is not taken must be finite too.
    barrier = -torch.log(torch.clamp(-z, min=joint)) / t
    tangent = t * z - math.log(joint) / t + 1 / t
    return torch.where(z <= -joint, barrier, tangent)
