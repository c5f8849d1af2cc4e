"""Specifications of networks."""

import pytest
import torch

from lib.networks.spec import ArchitectureError, NetworkSpec

LABELS, SPACING_MM = ("lesion", "cyst"), (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("UNet", {"channels": [4, 8], "strides": [2]}),
        ("SegResNet", {"init_filters": 8}),
        (
            "DynUNet",
            {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
        ),
    ],
)
def test_networks_of_monai_give_logits_on_the_grid_of_the_image(architecture, arguments):
    spec = NetworkSpec.of_monai(LABELS, SPACING_MM, (20, 32, 16), architecture, arguments)

    assert spec.roi_size == (32, 32, 16)
    assert spec.build()(torch.zeros(1, 1, *spec.roi_size)).shape == (1, 3, 32, 32, 16)


@pytest.mark.parametrize(
    ("architecture", "arguments", "sentence"),
    [
        ("UNot", {}, "There is no network 'UNot'; expected UNet2d5 or a class of monai.networks.nets"),
        ("torch", {}, "There is no network 'torch'"),
        ("UNet", {"canals": 3}, "UNet cannot be built"),
        ("DenseNet", {"block_config": [1, 1]}, r"DenseNet gives \(1, 3\); expected logits of shape"),
        ("UNet", {"channels": [4, 8, 8, 8, 8, 8, 8], "strides": [2] * 6}, "UNet cannot work on patches of"),
    ],
)
def test_unsuitable_networks_are_refused(architecture, arguments, sentence):
    with pytest.raises(ArchitectureError, match=sentence):
        NetworkSpec.of_monai(LABELS, SPACING_MM, (16, 16, 16), architecture, arguments)
