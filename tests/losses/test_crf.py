"""The CRF regularised loss against the O(N^2) sum in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.losses import bilateral_grid, interpolation
from lib.losses.bilateral_grid import BilateralGrid
from lib.losses.crf import CRFLoss

SCALES = list(itertools.product((5.0, 15.0), (0.05, 0.5)))
VALUE_TOLERANCE = 0.005
GRADIENT_TOLERANCE = 0.02
PROBABILITIES = ("blob", "mask", "random", "rare")


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread: on volumes of a few thousand voxels, more threads are slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def coordinates(shape: tuple[int, ...]) -> Tensor:
    return torch.stack(torch.meshgrid(*(torch.arange(size).double() for size in shape), indexing="ij"))


def exact(image: Tensor, probabilities: Tensor, sigma_alpha, sigma_beta, spacing_mm=(1.0, 1.0, 1.0)):
    """Compute R and dR/dp of Section 3.3 over all pairs, for an image (X, Y, Z) and each of (P, X, Y, Z)."""
    position = coordinates(image.shape) * torch.tensor(spacing_mm).double()[:, None, None, None]
    features = torch.cat([position / sigma_alpha, image.double()[None] / sigma_beta]).flatten(start_dim=1).T
    p = probabilities.double().flatten(start_dim=1).T
    towards_background, towards_foreground = torch.empty_like(p), torch.empty_like(p)
    for rows in torch.arange(len(p)).split(512):
        distance = torch.cdist(features[rows], features, compute_mode="donot_use_mm_for_euclid_dist")
        kernel = distance.square_().mul_(-0.5).exp_()
        towards_background[rows] = kernel @ (1 - p)
        towards_foreground[rows] = kernel @ p
    values = (p * towards_background).sum(dim=0) / len(p)
    gradients = (towards_background - towards_foreground) / len(p)
    return values.tolist(), gradients.T.reshape(probabilities.shape)


IMAGES = {
    "smooth": lambda x, noise, ball: torch.sin(3 * x[0]) + torch.cos(4 * x[1]) * x[2],
    "noisy": lambda x, noise, ball: noise,
    "piecewise constant": lambda x, noise, ball: torch.where(ball, 1.1, -0.37),
    "two close levels": lambda x, noise, ball: torch.where(ball, 0.06, 0.0),
    "piecewise constant with noise": lambda x, noise, ball: torch.where(ball, 1.1, -0.37) + 0.05 * noise,
    "constant": lambda x, noise, ball: torch.full_like(noise, 0.77),
    "outliers": lambda x, noise, ball: torch.where(noise > 2.5, 20 * noise, 0.2 * noise),
    "one voxel at 1000": lambda x, noise, ball: torch.where(noise == noise.max(), 1000.0, 0.2 * noise),
}


def make_image(kind: str, shape: tuple[int, ...]) -> Tensor:
    position = coordinates(shape) / max(shape)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return IMAGES[kind](position, noise, ((position - 0.4) ** 2).sum(dim=0) < 0.06)


def make_probability(kind: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    squared_radius = ((coordinates(shape) / max(shape) - 0.4) ** 2).sum(dim=0)
    return {
        "blob": torch.sigmoid(-40 * (squared_radius - 0.06)),
        "mask": (squared_radius < 0.05).double(),
        "random": torch.rand(shape, generator=generator, dtype=torch.float64),
        "rare": (torch.rand(shape, generator=generator, dtype=torch.float64) < 0.04).double(),
    }[kind]


def value_and_gradient(loss: CRFLoss, image: Tensor, probability: Tensor):
    p = probability[None, None].clone().requires_grad_()
    value = loss(image[None, None], p)
    value.backward()
    return value.item(), p.grad[0, 0]


def assert_exact(image: Tensor, sigma_alpha: float, sigma_beta: float, spacing_mm=(1.0, 1.0, 1.0)) -> None:
    loss = CRFLoss(sigma_alpha, sigma_beta, spacing_mm=spacing_mm)
    probabilities = torch.stack([make_probability(kind, image.shape) for kind in PROBABILITIES]).float()
    expected = exact(image, probabilities, sigma_alpha, sigma_beta, spacing_mm)
    for probability, exact_value, exact_gradient in zip(probabilities, *expected, strict=True):
        value, gradient = value_and_gradient(loss, image, probability)
        assert value == pytest.approx(exact_value, rel=VALUE_TOLERANCE)
        assert (gradient - exact_gradient).norm() < GRADIENT_TOLERANCE * exact_gradient.norm()


@pytest.mark.parametrize("sigma_alpha, sigma_beta", SCALES)
@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 20, 9)])
@pytest.mark.parametrize("kind", IMAGES)
def test_value_and_gradient_are_those_of_the_exact_sum(kind, shape, sigma_alpha, sigma_beta):
    assert_exact(make_image(kind, shape).float(), sigma_alpha, sigma_beta)


@pytest.mark.parametrize("kind", ["smooth", "noisy"])
def test_axes_of_many_sigma(kind):
    assert_exact(make_image(kind, (40, 20, 12)).float(), 5.0, 0.05)


@pytest.mark.parametrize("contrast", np.linspace(0.5, 3, 6))
def test_a_mask_along_an_edge_costs_the_pairs_across_it(contrast):
    mask = make_probability("mask", (8, 8, 8)).float()
    (expected,), _ = exact(contrast * mask, mask[None], 15.0, 1.0)
    value, _ = value_and_gradient(CRFLoss(15.0, 1.0), contrast * mask, mask)
    assert value == pytest.approx(expected, rel=VALUE_TOLERANCE)


@pytest.mark.parametrize("sigma_alpha, sigma_beta", SCALES)
@pytest.mark.parametrize("shape, spacing_mm", [((12, 12, 8), (0.5, 0.5, 3.0)), ((8, 8, 8), (0.9, 0.9, 6.5))])
def test_distances_in_mm(shape, spacing_mm, sigma_alpha, sigma_beta):
    assert_exact(make_image("smooth", shape).float(), sigma_alpha, sigma_beta, spacing_mm)


def test_more_nodes_are_more_exact():
    shape = (24, 16, 8)
    image, probability = make_image("noisy", shape), make_probability("random", shape)
    _, (exact_gradient,) = exact(image, probability[None], 3.0, 0.5)
    coarse, medium, fine = (
        (value_and_gradient(CRFLoss(3.0, 0.5, nodes_per_sigma=nodes), image, probability)[1] - exact_gradient).norm()
        for nodes in (1.0, 1.5, 2.5)
    )
    assert fine < medium < coarse


def test_mean_over_patches_and_sum_over_classes():
    shape = (8, 9, 7)
    images = [make_image("smooth", shape), make_image("noisy", shape)]
    classes = torch.stack([make_probability("random", shape) / 2, make_probability("blob", shape) / 2])
    batch = torch.stack([classes, classes.flip(1)]).requires_grad_()
    value = CRFLoss(5.0, 0.5)(torch.stack(images)[:, None], batch)
    value.backward()

    expected = [exact(image, p.detach(), 5.0, 0.5) for image, p in zip(images, batch, strict=True)]
    assert value.item() == pytest.approx(sum(sum(values) for values, _ in expected) / 2, rel=VALUE_TOLERANCE)
    exact_gradient = torch.stack([gradient for _, gradient in expected]) / 2
    assert (batch.grad - exact_gradient).norm() < GRADIENT_TOLERANCE * exact_gradient.norm()


def test_background_doubles_a_single_class():
    shape = (8, 8, 8)
    image, probability = make_image("noisy", shape), make_probability("blob", shape)
    value, gradient = value_and_gradient(CRFLoss(5.0, 0.5), image, probability)
    both_value, both_gradient = value_and_gradient(CRFLoss(5.0, 0.5, include_background=True), image, probability)
    assert both_value == pytest.approx(2 * value)
    torch.testing.assert_close(both_gradient, 2 * gradient)


def test_gradcheck():
    image = make_image("noisy", (4, 3, 2))[None, None].repeat(2, 1, 1, 1, 1)
    probability = make_probability("random", (2, 4, 3, 2))[:, None].repeat(1, 2, 1, 1, 1).requires_grad_()
    loss = CRFLoss(2.0, 0.5)
    assert torch.autograd.gradcheck(lambda p: loss(image, p), (probability,))


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    sigma_alpha=st.floats(0.5, 20),
    sigma_beta=st.floats(0.02, 2),
    contrast=st.floats(0, 50),
    hard=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_r_is_not_negative_and_the_filter_symmetric(shape, sigma_alpha, sigma_beta, contrast, hard, seed):
    generator = torch.Generator().manual_seed(seed)
    image = contrast * torch.rand(shape, generator=generator)
    p, q = torch.rand(2, *shape, generator=generator)
    p = p.round() if hard else p
    assert CRFLoss(sigma_alpha, sigma_beta)(image[None, None], p[None, None]) >= 0

    grid = BilateralGrid(image.double(), (sigma_alpha,) * 3, sigma_beta, 1.1)
    kp, kq = grid.filter(torch.stack([p, q]).double())
    assert float((kp * q).sum()) == pytest.approx(float((kq * p).sum()), rel=1e-9)


@pytest.mark.parametrize("gap", [12, 20, 36])
def test_distant_pairs_do_not_make_r_negative(gap):
    image, probability = torch.zeros(64, 8, 8), torch.ones(64, 8, 8)
    image[gap : gap + 20] = 10.0  # so that only pairs across the gap, 7 sigma_alpha apart, differ in probability
    probability[gap + 20 :] = 0.0
    assert CRFLoss(3.0, 0.5)(image[None, None], probability[None, None]) >= 0


def test_certain_and_uniform_predictions_cost_nothing():
    image = make_image("noisy", (8, 8, 8))[None, None].float()
    for level in (0.0, 1.0):
        assert CRFLoss()(image, torch.full_like(image, level)) == pytest.approx(0, abs=1e-4)


@settings(deadline=None, max_examples=15)
@given(shift=st.floats(-100, 100))
def test_a_shift_of_all_intensities_changes_nothing(shift):
    image, probability = make_image("noisy", (9, 8, 7)), make_probability("random", (9, 8, 7))
    value, gradient = value_and_gradient(CRFLoss(5.0, 0.5), image, probability)
    shifted_value, shifted_gradient = value_and_gradient(CRFLoss(5.0, 0.5), image + shift, probability)
    assert shifted_value == pytest.approx(value, rel=1e-8)
    torch.testing.assert_close(shifted_gradient, gradient)


@pytest.mark.parametrize("axes", list(itertools.permutations((0, 1, 2))))
def test_permuting_the_axes_permutes_the_gradient(axes):
    image, probability = make_image("noisy", (9, 8, 7)), make_probability("random", (9, 8, 7))
    value, gradient = value_and_gradient(CRFLoss(5.0, 0.5), image, probability)
    turned_value, turned = value_and_gradient(CRFLoss(5.0, 0.5), image.permute(axes), probability.permute(axes))
    assert turned_value == pytest.approx(value)
    torch.testing.assert_close(turned, gradient.permute(axes))


def test_moving_an_object_within_the_image_changes_nothing():
    image = torch.zeros(32, 24, 20)
    image[6:12, 5:11, 4:9] = 3.0
    probability = 0.8 * (image > 0).float()
    moved = [torch.roll(volume, (5, 4, 3), dims=(0, 1, 2)) for volume in (image, probability)]
    gradient = value_and_gradient(CRFLoss(2.0, 0.5), image, probability)[1]
    moved_gradient = value_and_gradient(CRFLoss(2.0, 0.5), *moved)[1]
    inside = image > 0
    difference = torch.roll(moved_gradient, (-5, -4, -3), dims=(0, 1, 2))[inside] - gradient[inside]
    assert difference.norm() < GRADIENT_TOLERANCE * gradient[inside].norm()


def work_in_chunks_of(bins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bilateral_grid, "MAX_GRID_VALUES", 1)
    monkeypatch.setattr(bilateral_grid, "MIN_CHUNK_BINS", bins)


def test_chunks_of_bins_give_what_one_grid_gives(monkeypatch):
    image, probability = make_image("outliers", (9, 8, 7)), make_probability("random", (9, 8, 7))
    value, gradient = value_and_gradient(CRFLoss(5.0, 0.05), image, probability)
    work_in_chunks_of(5, monkeypatch)
    chunked_value, chunked_gradient = value_and_gradient(CRFLoss(5.0, 0.05), image, probability)
    assert chunked_value == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(chunked_gradient, gradient)


def test_compiled_and_torch_interpolation_agree(monkeypatch):
    work_in_chunks_of(30, monkeypatch)
    monkeypatch.setattr(interpolation, "MAX_COLUMN_VALUES", 2**15)
    image = make_image("noisy", (9, 8, 7))
    volumes = torch.stack([make_probability(kind, (9, 8, 7)) for kind in ("random", "blob")])
    grid = BilateralGrid(image, (5.0, 5.0, 3.0), 0.05, 1.1)
    compiled = grid.filter(volumes)
    grid.interpolation.compiled = False
    torch.testing.assert_close(grid.filter(volumes), compiled)


def test_threads_do_not_change_a_bit():
    shape = (48, 24, 16)
    assert np.prod(shape) > interpolation.MIN_VOXELS_FOR_THREADS
    image, volumes = make_image("noisy", shape).float(), make_probability("random", shape)[None].float()
    grid = BilateralGrid(image, (5.0, 5.0, 5.0), 0.5, 1.1)
    alone = grid.filter(volumes)
    torch.set_num_threads(4)
    torch.testing.assert_close(grid.filter(volumes), alone, rtol=0, atol=0)


@pytest.mark.parametrize("voxels, sigma", [(224, 15.0), (48, 5.0), (9, 5.0), (1, 5.0)])
def test_planes_that_are_worked_on_together_share_no_node(voxels, sigma):
    node = bilateral_grid.spatial_axis(voxels, sigma, 1.1).spline.node
    together = interpolation.independent_tasks(node)
    for ranges in together:
        reached = [{n + step for n in node[first:last] for step in (-1, 0, 1)} for first, last in ranges]
        assert len(set().union(*reached)) == sum(map(len, reached))
    planes = [x for ranges in together for first, last in ranges for x in range(first, last)]
    assert sorted(planes) == list(range(voxels))


def test_an_outlier_costs_few_bins():
    image = make_image("noisy", (8, 8, 8)).float()
    axis = bilateral_grid.intensity_axis(image, 0.5, 1.98)
    image[0, 0, 0] = 1e4
    assert bilateral_grid.intensity_axis(image, 0.5, 1.98).bin_count < axis.bin_count + 30


def test_autocast_does_not_change_the_value():
    image, probability = make_image("noisy", (8, 8, 8)).float(), make_probability("random", (8, 8, 8)).bfloat16()
    expected, _ = value_and_gradient(CRFLoss(), image, probability.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(CRFLoss(), image, probability)
    assert value == expected
    assert gradient.dtype == torch.bfloat16 and bool(gradient.isfinite().all())


def test_a_scaled_loss_gives_the_scaled_gradient():
    image, probability = make_image("noisy", (8, 8, 8)).float(), make_probability("random", (8, 8, 8)).float()
    _, expected = value_and_gradient(CRFLoss(), image, probability)
    p = probability[None, None].clone().requires_grad_()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimiser = torch.optim.SGD([p], lr=1.0)
    scaler.scale(CRFLoss()(image[None, None], p)).backward()
    scaler.step(optimiser)
    torch.testing.assert_close(p.detach()[0, 0], probability - expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sigma_alpha": 0.0}, "sigma_alpha is 0.0"),
        ({"sigma_beta": -1.0}, "sigma_beta is -1.0"),
        ({"nodes_per_sigma": 0.9}, "expected at least 1"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CRFLoss(**arguments)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_intensities_must_be_finite(bad):
    image = torch.zeros(1, 1, 4, 4, 4)
    image[0, 0, 1, 2, 3] = bad
    with pytest.raises(ValueError, match="replace NaN and inf"):
        CRFLoss()(image, torch.zeros(1, 1, 4, 4, 4))


def test_an_image_far_from_z_scored_is_refused():
    image = torch.linspace(0, 1e6, 64**3).reshape(1, 1, 64, 64, 64)
    with pytest.raises(ValueError, match="normalise it"):
        CRFLoss()(image, torch.zeros_like(image))


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="do not fit"):
        CRFLoss()(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 5))
