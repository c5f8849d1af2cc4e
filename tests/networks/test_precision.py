"""16-bit arithmetic is used only where it is correct."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib.networks.precision import exceeds_input, mixed_precision
from lib.networks.spec import NetworkSpec

CPU = torch.device("cpu")


def convolution(kernel, padding="same"):
    return nn.Conv3d(1, 2, kernel, padding=padding)


@pytest.mark.parametrize(
    ("network", "size", "exceeds"),
    [
        (convolution(3), (3, 3, 3), False),
        (convolution(3), (2, 8, 8), True),
        (convolution(3), (8, 8, 2), True),
        (convolution((1, 3, 3)), (1, 3, 3), False),
        (nn.ConvTranspose3d(1, 2, 4, 2), (3, 8, 8), True),
        (nn.Sequential(nn.MaxPool3d(4), convolution(3)), (12, 12, 12), False),
        (nn.Sequential(nn.MaxPool3d(4), convolution(3)), (12, 12, 8), True),
    ],
)
def test_kernel_that_is_larger_than_its_input_is_found(network, size, exceeds):
    assert exceeds_input(network, size) is exceeds
    assert network.training and not any(module._forward_pre_hooks for module in network.modules())


def test_result_depends_on_the_size():
    network = convolution(3)

    assert [exceeds_input(network, size) for size in [(8, 8, 8), (2, 8, 8), (8, 8, 8)]] == [False, True, False]


def fill_free_memory():
    """Fill free memory with NaN, which a read of uninitialised memory returns."""
    blocks = [torch.full((2**power,), torch.nan, dtype=torch.bfloat16) for power in range(4, 22) for _ in range(4)]
    del blocks


def gradients(network, image, precision):
    network.zero_grad()
    fill_free_memory()
    with torch.autocast("cpu", precision, enabled=precision is not None):
        logits = network(image)
    fill_free_memory()
    nn.functional.cross_entropy(logits.float(), (image[:, 0] > 0).long()).backward()
    return [parameter.grad.flatten() for parameter in network.parameters() if parameter.ndim > 1]


@pytest.mark.parametrize("size", [(16, 24, 16), (24, 16, 16), (48, 16, 16), (16, 16, 48), (24, 24, 24), (48, 48, 48)])
def test_gradients_are_those_of_32_bits(size):
    torch.manual_seed(0)
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), size, 4, 12)
    network, image = spec.build().train(), torch.randn(2, 1, *spec.roi_size)

    expected = gradients(network, image, None)
    found = gradients(network, image, mixed_precision(CPU, network, spec.roi_size))

    alike = [nn.functional.cosine_similarity(a, b, dim=0).item() for a, b in zip(found, expected, strict=True)]
    assert min(alike) > 0.9
