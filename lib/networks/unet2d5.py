"""Build the paper's 2.5D U-Net, with kernels and strides that follow the voxel spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.blocks import Convolution, UpSample
from torch import Tensor, nn

Triple = tuple[int, int, int]

ISOTROPIC_RATIO = 1.25
"""Ratio of spacings below which they are treated as equal."""

IN_PLANE_RATIO = 1.75
"""Ratio of spacings up to which one stage has kernels of a single slice; each doubling adds one. See `plan_stages`."""

NO_POOLING_RATIO = 3.5
"""Twice `IN_PLANE_RATIO`: ratio of spacings above which an axis is not pooled."""

LEAKY_SLOPE = 0.01


class StagePlan(NamedTuple):
    """Kernels and strides of `UNet2d5`, as plain lists for checkpoints.

    Attributes:
        kernels: one kernel size per stage, finest first.
        strides: one pooling factor between each stage and the next.
    """

    kernels: list[list[int]]
    strides: list[list[int]]


def plan_stages(spacing_mm: Sequence[float], levels: int = 5) -> StagePlan:
    """Choose kernels and strides for voxels of `spacing_mm`.

    For each axis, r is its spacing over the finest one, and the number of first stages with kernel 1 along
    it (at most all but the deepest) is

    - 0 for r < 1.25: isotropic voxels get a plain 3D network;
    - floor(log2(r / 1.75)) + 2 otherwise: kernels extend across slices from the stage on whose in-plane voxels
      are about as large as the slice spacing. It is 1 for r < 1.75, 2 for r < 3.5, which is the paper's
      network at 0.5 x 0.5 x 1.0-1.5 mm, 3 for r < 7 and 4 for r < 14 (0.9 x 0.9 x 6.5 mm).

    Pooling halves every axis, except those whose voxels at that stage are more than 3.5 times as long as the
    finest: thick slices are not merged before in-plane voxels are of a similar size.

    Args:
        spacing_mm: voxel spacing along (X, Y, Z) in mm, greater than 0.
        levels: number of stages, at least 2; the paper's network has 5 (4 poolings).

    Raises:
        ValueError: there are not three positive and finite spacings, or `levels` < 2.
    """
    if len(spacing_mm) != 3 or not all(math.isfinite(value) and value > 0 for value in spacing_mm):
        raise ValueError(f"spacing_mm is {tuple(spacing_mm)}; expected three lengths > 0: read the image's header.")
    if levels < 2:
        raise ValueError(f"levels is {levels}; expected at least 2, a U-Net needs one pooling: raise it.")
    finest = min(spacing_mm)
    flat_stages = [min(_flat_stages(value / finest), levels - 1) for value in spacing_mm]
    kernels = [[1 if stage < flat else 3 for flat in flat_stages] for stage in range(levels)]

    strides = []
    current_mm = list(spacing_mm)
    for _ in range(levels - 1):
        strides.append([1 if value > NO_POOLING_RATIO * min(current_mm) else 2 for value in current_mm])
        current_mm = [value * stride for value, stride in zip(current_mm, strides[-1], strict=True)]
    return StagePlan(kernels, strides)


def _flat_stages(ratio: float) -> int:
    return 0 if ratio < ISOTROPIC_RATIO else max(1, math.floor(math.log2(ratio / IN_PLANE_RATIO)) + 2)


class UNet2d5(nn.Module):
    """U-Net with two convolutions per stage, max pooling, and trilinear upsampling; the output is logits.

    Source: Dorent et al., MICCAI 2021, Section 4, and their public code: 16 channels doubled at each of four
    max-poolings, instance normalisation, leaky ReLU of slope 0.01. Before each upsampling, a convolution of one
    voxel halves the channels, which is a choice of this implementation. The defaults are that network; `plan_stages`
    adapts it to other voxels, and fewer `base_channels` or stages make it smaller.

    Args:
        in_channels: channels of the image.
        out_channels: 1 + C, background first.
        kernels: kernel size of each stage, finest first; odd numbers.
        strides: pooling factor between each stage and the next, one fewer than `kernels`.
        base_channels: channels of the finest stage.

    Raises:
        ValueError: `strides` is not one shorter than `kernels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernels: Sequence[Sequence[int]] = ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        strides: Sequence[Sequence[int]] = ((2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
        base_channels: int = 16,
    ) -> None:
        super().__init__()
        if len(strides) != len(kernels) - 1:
            raise ValueError(
                f"{len(kernels)} kernels and {len(strides)} strides; expected one stride fewer than kernels: "
                "take both from plan_stages."
            )
        channels = [base_channels * 2**stage for stage in range(len(kernels))]
        self.divisor: Triple = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
        self.encoders = nn.ModuleList(
            _two_convolutions(before, after, kernel)
            for before, after, kernel in zip([in_channels, *channels], channels, kernels, strict=False)
        )
        self.poolings = nn.ModuleList(nn.MaxPool3d(tuple(stride), tuple(stride)) for stride in strides)
        self.upsamplings = nn.ModuleList(
            UpSample(3, coarse, fine, scale_factor=tuple(stride), mode="nontrainable", align_corners=False)
            for fine, coarse, stride in zip(channels, channels[1:], strides, strict=False)
        )
        self.decoders = nn.ModuleList(
            _two_convolutions(2 * fine, fine, kernel) for fine, kernel in zip(channels, kernels[:-1], strict=False)
        )
        self.head = nn.Conv3d(channels[0], out_channels, kernel_size=1)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, out_channels, X, Y, Z) for an image (B, in_channels, X, Y, Z).

        Raises:
            ValueError: X, Y, Z are not multiples of `divisor`, or leave one voxel at the deepest stage.
        """
        self._check(image)
        skips: list[Tensor] = []
        features = self.encoders[0](image)
        for pooling, encoder in zip(self.poolings, self.encoders[1:], strict=True):
            skips.append(features)
            features = encoder(pooling(features))
        for upsampling, decoder, skip in zip(self.upsamplings[::-1], self.decoders[::-1], skips[::-1], strict=True):
            features = decoder(torch.cat([skip, upsampling(features)], dim=1))
        return self.head(features)

    def _check(self, image: Tensor) -> None:
        shape = tuple(image.shape[2:])
        if len(shape) != 3 or any(size % divisor for size, divisor in zip(shape, self.divisor, strict=True)):
            raise ValueError(
                f"image has shape {tuple(image.shape)}; expected (B, C, X, Y, Z) with X, Y, Z multiples of "
                f"{self.divisor}: pad it or choose another patch size."
            )
        if shape == self.divisor:
            # Instance normalisation of a single voxel is always 0: the deepest stage would have no effect.
            raise ValueError(
                f"image of {shape} voxels leaves one voxel at the deepest stage; expected at least twice "
                f"{self.divisor} along one axis: take a larger patch or fewer levels."
            )


def _two_convolutions(in_channels: int, out_channels: int, kernel: Sequence[int]) -> nn.Sequential:
    def convolution(before: int) -> Convolution:
        # No bias: the instance normalisation that follows would remove it.
        return Convolution(
            spatial_dims=3,
            in_channels=before,
            out_channels=out_channels,
            kernel_size=tuple(kernel),
            adn_ordering="NA",
            norm=("instance", {"affine": True}),
            act=("leakyrelu", {"negative_slope": LEAKY_SLOPE, "inplace": True}),
            bias=False,
        )

    return nn.Sequential(convolution(in_channels), convolution(out_channels))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
