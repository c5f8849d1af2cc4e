"""The 2.5D U-Net: its plan for a spacing, its size, its shapes."""

from __future__ import annotations

import pytest
import torch

from lib.networks.unet2d5 import UNet2d5, plan_stages

IN_PLANE, FULL = [3, 3, 1], [3, 3, 3]


@pytest.mark.parametrize("spacing_mm", [(0.5, 0.5, 1.0), (0.5, 0.5, 1.5), (0.41, 0.41, 1.0), (0.55, 0.55, 1.0)])
def test_the_paper_s_spacing_gives_the_paper_s_network(spacing_mm):
    kernels, strides = plan_stages(spacing_mm)
    assert kernels == [IN_PLANE, IN_PLANE, FULL, FULL, FULL]
    assert strides == [[2, 2, 2]] * 4


def test_isotropic_voxels_give_a_plain_3d_network():
    assert plan_stages((1.0, 1.0, 1.1), levels=4) == ([FULL] * 4, [[2, 2, 2]] * 3)


def test_thick_slices_have_more_stages_in_plane_and_are_pooled_later():
    kernels, strides = plan_stages((0.9, 0.9, 6.5))
    assert kernels == [IN_PLANE] * 4 + [FULL]
    assert strides == [[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]


def test_the_deepest_stage_has_kernels_across_slices_of_any_thickness():
    assert plan_stages((0.5, 0.5, 20.0), levels=3).kernels == [IN_PLANE, IN_PLANE, FULL]


@pytest.mark.parametrize("axis", range(3))
def test_any_axis_may_be_the_coarse_one(axis):
    spacing_mm = [0.5, 0.5, 0.5]
    spacing_mm[axis] = 1.5
    kernels, _ = plan_stages(spacing_mm)
    assert [kernel[axis] for kernel in kernels] == [1, 1, 3, 3, 3]
    assert all(size == 3 for kernel in kernels for other, size in enumerate(kernel) if other != axis)


@pytest.mark.parametrize("spacing_mm, levels", [((1.0, 1.0), 5), ((1.0, 0.0, 1.0), 5), ((1.0, 1.0, 1.0), 1)])
def test_bad_arguments_of_a_plan_are_refused(spacing_mm, levels):
    with pytest.raises(ValueError, match="expected"):
        plan_stages(spacing_mm, levels)


def test_the_default_network_is_the_paper_s():
    def every(kind: type) -> list:
        return [module for module in UNet2d5(1, 2).modules() if isinstance(module, kind)]

    stages = [(3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert [conv.kernel_size for conv in every(torch.nn.Conv3d) if conv.kernel_size != (1, 1, 1)] == [
        *(kernel for kernel in stages for _ in range(2)),
        *(kernel for kernel in stages[:-1] for _ in range(2)),
    ]
    assert [pooling.kernel_size for pooling in every(torch.nn.MaxPool3d)] == [(2, 2, 2)] * 4
    assert [up.mode for up in every(torch.nn.Upsample)] == ["trilinear"] * 4
    assert [activation.negative_slope for activation in every(torch.nn.LeakyReLU)] == [0.01] * 18
    assert [norm.num_features for norm in every(torch.nn.InstanceNorm3d)][:10:2] == [16, 32, 64, 128, 256]
    assert len(every(torch.nn.InstanceNorm3d)) == 18


def test_parameter_count():
    # Per convolution: weights, and the scale and shift of its instance normalisation.
    def stage(before: int, after: int, kernel: int) -> int:
        return (before + after) * after * kernel + 4 * after

    encoder = stage(1, 16, 9) + stage(16, 32, 9) + stage(32, 64, 27) + stage(64, 128, 27) + stage(128, 256, 27)
    decoder = stage(256, 128, 27) + stage(128, 64, 27) + stage(64, 32, 9) + stage(32, 16, 9)
    before_upsampling = sum(2 * fine * fine + fine for fine in (16, 32, 64, 128))
    head = 16 * 2 + 2
    expected = encoder + decoder + before_upsampling + head
    assert sum(parameter.numel() for parameter in UNet2d5(1, 2).parameters()) == expected


@pytest.mark.parametrize("spacing_mm, divisor", [((1, 1, 1), (8, 8, 8)), ((0.9, 0.9, 6.5), (8, 8, 2))])
def test_logits_have_the_shape_of_the_image(spacing_mm, divisor):
    network = UNet2d5(2, 3, *plan_stages(spacing_mm, levels=4), base_channels=4)
    assert network.divisor == divisor
    shape = tuple(3 * size for size in divisor)
    assert network(torch.randn(2, 2, *shape)).shape == (2, 3, *shape)


def test_each_decoder_gets_the_features_of_its_stage():
    network = UNet2d5(1, 2, *plan_stages((1, 1, 1), levels=3), base_channels=2)
    encoded, decoded = [], []
    for encoder, decoder in zip(network.encoders, network.decoders, strict=False):
        encoder.register_forward_hook(lambda module, inputs, output: encoded.append(output))
        decoder.register_forward_hook(lambda module, inputs, output: decoded.append(inputs[0]))
    network(torch.randn(1, 1, 8, 8, 8))
    for features, skipped in zip(encoded, reversed(decoded), strict=True):
        torch.testing.assert_close(skipped[:, : features.shape[1]], features, rtol=0, atol=0)


def test_every_parameter_learns():
    network = UNet2d5(1, 2, *plan_stages((1, 1, 1), levels=3), base_channels=2)
    network(torch.randn(1, 1, 16, 16, 16)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_kernels_of_one_slice_keep_slices_apart():
    network = UNet2d5(1, 2, [IN_PLANE] * 2, [[2, 2, 1]], base_channels=2).eval()
    # Instance normalisation sees the whole volume; without it only the kernels connect voxels.
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.forward = lambda features: features  # type: ignore[method-assign]
    image = torch.randn(1, 1, 8, 8, 6)
    changed = image.clone()
    changed[..., 3] += 1
    different = (network(image) - network(changed)).abs().amax(dim=(0, 1, 2, 3)) > 0
    assert different.tolist() == [False, False, False, True, False, False]


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"multiples of \(16, 16, 16\)"):
        UNet2d5(1, 2)(torch.zeros(1, 1, 32, 32, 24))


def test_one_voxel_at_the_deepest_stage_is_refused():
    with pytest.raises(ValueError, match="take a larger patch"):
        UNet2d5(1, 2)(torch.zeros(1, 1, 16, 16, 16))


def test_kernels_and_strides_must_belong_together():
    with pytest.raises(ValueError, match="one stride fewer"):
        UNet2d5(1, 2, [FULL] * 3, [[2, 2, 2]])
