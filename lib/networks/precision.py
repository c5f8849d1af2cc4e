"""Choose 16-bit arithmetic on devices on which it is faster and correct."""

from __future__ import annotations

import copy
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

_EXCEEDS: WeakKeyDictionary[nn.Module, dict[tuple[int, int, int], bool]] = WeakKeyDictionary()


def mixed_precision(device: torch.device, network: nn.Module, size: tuple[int, int, int]) -> torch.dtype | None:
    """Return the 16-bit type that is faster than 32 bits on the device, or None.

    oneDNN, which computes convolutions on CPUs, accesses memory beyond its arrays in bfloat16 if a kernel is larger
    than its input (PyTorch 2.13): gradients are then wrong or not finite. Such networks use 32 bits on CPUs.

    Args:
        size: voxels (X, Y, Z) of the patches or windows.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() and not exceeds_input(network, size):
        return torch.bfloat16
    return None


def exceeds_input(network: nn.Module, size: tuple[int, int, int]) -> bool:
    """Tell whether a kernel of a convolution is larger than its input along an axis.

    A copy of the network is run once for each size.
    """
    known = _EXCEEDS.setdefault(network, {})
    if size not in known:
        known[size] = _exceeds_input(copy.deepcopy(network).cpu().float().eval(), size)
    return known[size]


@torch.no_grad()
def _exceeds_input(network: nn.Module, size: tuple[int, int, int]) -> bool:
    exceeding = []

    def compare(convolution: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(convolution, _ConvNd)
        lengths = inputs[0].shape[2:]
        exceeding.append(any(kernel > n for kernel, n in zip(convolution.kernel_size, lengths, strict=True)))

    for module in network.modules():
        if isinstance(module, _ConvNd):
            module.register_forward_pre_hook(compare)
    network(torch.zeros(1, 1, *size))
    return any(exceeding)
