"""Compute the CRF regularised loss: near voxels of like intensity get like probabilities (paper, Section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lib.losses.bilateral_grid import BilateralGrid

MIN_NODES_PER_SIGMA = 1.0
"""With fewer, the splines are wider than the Gaussian that they approximate."""


class CRFLoss(nn.Module):
    """R = mean over B of (1/|Omega|) sum_c sum_{k,l} p_ck K_kl (1 - p_cl), a relaxed pairwise CRF energy.

    K_kl = exp(-d(k, l)^2 / (2 sigma_alpha^2) - (X_k - X_l)^2 / (2 sigma_beta^2)), with the pair k = l included
    (paper, Section 3.3). K is applied by a `BilateralGrid`, which is symmetric, so the gradient is analytic:
    dR/dp = (K(1 - p) - K p) / (B |Omega|), and the backward pass costs one multiplication. The image gets no
    gradient. R is not negative for probabilities in [0, 1]. R is computed in float32, also under autocast, and in
    float64 for a float64 probability.

    `nodes_per_sigma` trades accuracy for time. At the default, value is within 0.5 % and gradient (as a vector) within
    2 % of the exact O(N^2) sum; 2.0 is several times as exact, for 2 (sigma_alpha = 15) to 7 times the time (5).
    The value is up to 1 % too small for a mask along an edge of more than 3 sigma_beta, whose R is close to 0.
    `python -m benchmarks.crf` prints errors, times and memory; docs/results/speed.md lists them.

    Args:
        sigma_alpha: spatial scale, in voxels, or in mm if `spacing_mm` is given; the paper uses 15 (and 5).
        sigma_beta: intensity scale, in units of the image; the paper uses 0.05 (and 0.5) for images z-scored
            over the whole scan. Time, but not memory, grows with the intensity range divided by `sigma_beta`.
        spacing_mm: voxel spacing along (X, Y, Z) in mm, to measure d in mm; in voxels if None (the authors).
        include_background: add the term of the background, 1 - sum_c p_c, as the authors' public code does; with one
            class this doubles R. The paper's formula has the foreground only.
        nodes_per_sigma: grid nodes per `sigma_alpha`; the intensity axis has 1.8 times as many bins per
            `sigma_beta`.

    Raises:
        ValueError: a scale or a spacing is not positive, or `nodes_per_sigma` is less than 1.
    """

    def __init__(
        self,
        sigma_alpha: float = 15.0,
        sigma_beta: float = 0.05,
        spacing_mm: Sequence[float] | None = None,
        include_background: bool = False,
        nodes_per_sigma: float = 1.1,
    ) -> None:
        super().__init__()
        spacing = (1.0, 1.0, 1.0) if spacing_mm is None else tuple(float(value) for value in spacing_mm)
        scales = {"sigma_alpha": sigma_alpha, "sigma_beta": sigma_beta, "nodes_per_sigma": nodes_per_sigma}
        for name, value in scales.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; expected a number > 0, such as the default.")
        if nodes_per_sigma < MIN_NODES_PER_SIGMA:
            raise ValueError(
                f"nodes_per_sigma is {nodes_per_sigma}; expected at least {MIN_NODES_PER_SIGMA}, as a coarser grid "
                "cannot hold the Gaussian: raise it."
            )
        if len(spacing) != 3 or not all(value > 0 for value in spacing):
            raise ValueError(f"spacing_mm is {spacing}; expected three lengths > 0: read the image's header.")
        self.sigma_voxels = tuple(sigma_alpha / value for value in spacing)
        self.sigma_beta = sigma_beta
        self.include_background = include_background
        self.nodes_per_sigma = nodes_per_sigma

    def forward(self, image: Tensor, probability: Tensor) -> Tensor:
        """Return R, a scalar in float32 (float64 for a float64 probability).

        Args:
            image: (B, 1, X, Y, Z), finite intensities, z-scored over the scan.
            probability: (B, C, X, Y, Z) of the C foreground classes, in [0, 1].

        Raises:
            ValueError: the shapes do not fit, an intensity is not finite, or the intensity range is too many
                `sigma_beta` for the grid.
        """
        if image.ndim != 5 or probability.ndim != 5 or image.shape != probability[:, :1].shape:
            raise ValueError(
                f"image of shape {tuple(image.shape)} and probability of shape {tuple(probability.shape)} do not "
                "fit: expected (B, 1, X, Y, Z) and (B, C, X, Y, Z), without the background's channel."
            )
        if probability.dtype != torch.float64:
            probability = probability.float()
        if self.include_background:
            probability = torch.cat([1 - probability.sum(dim=1, keepdim=True), probability], dim=1)
        return _Regulariser.apply(probability, image.detach().to(probability.dtype), self)


class _Regulariser(torch.autograd.Function):
    """R and its analytic gradient, which are computed together because both need only K p and K 1."""

    @staticmethod
    def forward(ctx: Any, probability: Tensor, image: Tensor, loss: CRFLoss) -> Tensor:
        gradient = torch.empty_like(probability)
        value = probability.new_zeros(())
        # The gradient is a small difference, which products in half precision would lose.
        with torch.autocast(probability.device.type, enabled=False):
            for index, sample in enumerate(probability):
                grid = BilateralGrid(image[index, 0], loss.sigma_voxels, loss.sigma_beta, loss.nodes_per_sigma)
                filtered = grid.filter(torch.cat([torch.ones_like(sample[:1]), sample]))
                # K(1 - p) is not negative, but its rounding error may be where p is 1.
                complement = (filtered[:1] - filtered[1:]).clamp_(min=0)
                value += (sample * complement).sum()
                torch.sub(complement, filtered[1:], out=gradient[index])
        pairs = image.numel()
        ctx.save_for_backward(gradient.div_(pairs))
        return value / pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None
