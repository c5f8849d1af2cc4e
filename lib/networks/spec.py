"""Specify and build a network: architecture, labels and grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import monai.networks.nets
import torch
from torch import nn

from lib.networks.unet2d5 import UNet2d5, plan_stages

PAPERS_NETWORK = "UNet2d5"
# Most networks of MONAI have four poolings by default.
MONAI_DIVISOR = 16


class ArchitectureError(ValueError):
    """The network cannot be built; the message is for the user."""


@dataclass(frozen=True)
class NetworkSpec:
    """Architecture of a network and its grid, in plain values for checkpoints.

    Attributes:
        labels: names of the foreground channels 1, 2, ...
        spacing_mm: of the network's grid, along right, anterior, superior.
        roi_size: voxels of training patches, also of the sliding window.
        architecture: `UNet2d5`, the paper's, or the name of a class in `monai.networks.nets`.
        arguments: keyword arguments of the class, without the number of dimensions and channels.
    """

    labels: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    roi_size: tuple[int, int, int]
    architecture: str
    arguments: dict[str, Any]

    @classmethod
    def plan(
        cls,
        labels: tuple[str, ...],
        spacing_mm: tuple[float, float, float],
        roi_size: tuple[int, int, int],
        levels: int,
        base_channels: int,
    ) -> NetworkSpec:
        """Plan the paper's network: kernels and strides follow the spacing; the patch is enlarged to be divisible."""
        kernels, strides = plan_stages(spacing_mm, levels)
        divisor = UNet2d5(1, 2, kernels, strides, base_channels=2).divisor
        size = _grown(roi_size, divisor)
        if size == divisor:
            # The deepest stage needs more than one voxel.
            size = _grown((roi_size[0] + divisor[0], *roi_size[1:]), divisor)
        arguments = {"kernels": kernels, "strides": strides, "base_channels": base_channels}
        return cls(labels, spacing_mm, size, PAPERS_NETWORK, arguments)

    @classmethod
    def of_monai(
        cls,
        labels: tuple[str, ...],
        spacing_mm: tuple[float, float, float],
        roi_size: tuple[int, int, int],
        architecture: str,
        arguments: Mapping[str, Any],
    ) -> NetworkSpec:
        """Specify a network of MONAI that maps (B, 1, X, Y, Z) to logits (B, 1 + C, X, Y, Z).

        Raises:
            ArchitectureError: there is no such network, it does not take the arguments, or its output is not logits
                on the grid of its input.
        """
        size = _grown(roi_size, (MONAI_DIVISOR,) * 3)
        spec = cls(labels, spacing_mm, size, architecture, dict(arguments))
        network = spec.build().eval()
        try:
            with torch.inference_mode():
                logits = network(torch.zeros(1, 1, *size))
        except Exception as error:  # errors of any type
            raise ArchitectureError(f"{architecture} cannot work on patches of {size} voxels ({error}).") from error
        expected = (1, 1 + len(labels), *size)
        if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
            found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ArchitectureError(f"{architecture} gives {found}; expected logits of shape {expected}.")
        return spec

    def build(self) -> nn.Module:
        """Build an untrained network.

        Raises:
            ArchitectureError: there is no such network, or it does not take the arguments.
        """
        out_channels = 1 + len(self.labels)
        if self.architecture == PAPERS_NETWORK:
            return UNet2d5(1, out_channels, **self.arguments)
        network = getattr(monai.networks.nets, self.architecture, None)
        if not (isinstance(network, type) and issubclass(network, nn.Module)):
            raise ArchitectureError(
                f"There is no network {self.architecture!r}; expected {PAPERS_NETWORK} or a class of "
                "monai.networks.nets, such as DynUNet, SegResNet or UNet."
            )
        try:
            return network(spatial_dims=3, in_channels=1, out_channels=out_channels, **self.arguments)
        except Exception as error:  # errors of any type
            raise ArchitectureError(f"{self.architecture} cannot be built ({error}).") from error


def _grown(roi_size: tuple[int, int, int], divisor: tuple[int, int, int]) -> tuple[int, int, int]:
    i, j, k = (-(-size // step) * step for size, step in zip(roi_size, divisor, strict=True))
    return i, j, k
