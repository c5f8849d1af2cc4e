"""The CRF loss: error against the exact O(N^2) sum, and time and memory beside pydensecrf2's lattice.

Run with `python -m benchmarks.crf`. The peer is left out if it is not installed (`pip install pydensecrf2`).
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lib.losses.crf import CRFLoss

SCALES = [(15.0, 0.05), (15.0, 0.5), (5.0, 0.05), (5.0, 0.5)]
NODES_PER_SIGMA = [1.5, 2.25, 3.0]
ERROR_SHAPE = (32, 32, 16)
SPEED_SHAPE = (224, 224, 48)
CONSOLE = Console()


def example(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A z-scored image with texture, noise and a few bright outliers, and a soft ball as probability."""
    generator = torch.Generator().manual_seed(0)
    x, y, z = torch.meshgrid(*(torch.linspace(0, 1, size) for size in shape), indexing="ij")
    image = torch.sin(6 * x) * torch.cos(5 * y) + 0.5 * z + 0.15 * torch.randn(shape, generator=generator)
    bright = torch.rand(shape, generator=generator) < 0.001
    image = torch.where(bright, 20 * torch.rand(shape, generator=generator), image)
    ball = torch.sigmoid(20 * (0.3 - ((x - 0.5) ** 2 + (y - 0.5) ** 2 + (z - 0.5) ** 2).sqrt()))
    return image, ball


def images(shape: tuple[int, ...]) -> dict[str, Tensor]:
    textured, ball = example(shape)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(shape, generator=generator)
    levels = torch.where(ball > 0.5, 1.1, -0.37)
    return {
        "textured, outliers": textured,
        "noise": noise,
        "piecewise constant": levels,
        "the same, noisy": levels + 0.05 * noise,
        "constant": torch.full(shape, 0.77),
    }


def exact(image: Tensor, probability: Tensor, sigma_alpha: float, sigma_beta: float) -> tuple[float, Tensor]:
    """R and its gradient in float64, pair by pair."""
    axes = torch.meshgrid(*(torch.arange(size).double() for size in image.shape), indexing="ij")
    features = torch.stack([*(axis / sigma_alpha for axis in axes), image.double() / sigma_beta])
    features, p = features.flatten(start_dim=1).T, probability.double().flatten()
    sums = []
    for rows in features.split(512):
        distance = torch.cdist(rows, features, compute_mode="donot_use_mm_for_euclid_dist")
        sums.append(distance.square_().mul_(-0.5).exp_() @ torch.stack([1 - p, p], dim=1))
    background, foreground = torch.cat(sums).T
    return float(p @ background) / len(p), ((background - foreground) / len(p)).reshape(image.shape)


def forward_backward(loss: CRFLoss, image: Tensor, probability: Tensor) -> tuple[float, Tensor]:
    p = probability.clone().requires_grad_()
    value = loss(image, p)
    value.backward()
    assert p.grad is not None
    return value.item(), p.grad


def error_table() -> Table:
    table = Table(title=f"error against the exact sum, {'x'.join(map(str, ERROR_SHAPE))}, worst image")
    for column in ("sigma_alpha", "sigma_beta", "nodes_per_sigma", "value %", "gradient %", "worst image"):
        table.add_column(column, justify="right")
    _, ball = example(ERROR_SHAPE)
    for scales in SCALES:
        expected = {name: exact(image, ball, *scales) for name, image in images(ERROR_SHAPE).items()}
        for nodes in NODES_PER_SIGMA:
            errors = {}
            for name, image in images(ERROR_SHAPE).items():
                loss = CRFLoss(*scales, nodes_per_sigma=nodes)
                value, gradient = forward_backward(loss, image[None, None], ball[None, None])
                exact_value, exact_gradient = expected[name]
                gradient_error = (gradient[0, 0] - exact_gradient).norm() / exact_gradient.norm()
                errors[name] = (abs(value / exact_value - 1), float(gradient_error))
            worst = max(errors, key=lambda name: errors[name][1])
            value_error, gradient_error = (100 * max(column) for column in zip(*errors.values(), strict=True))
            table.add_row(*map(str, (*scales, nodes)), f"{value_error:.3f}", f"{gradient_error:.2f}", worst)
    return table


def lattice(image: Tensor, sigma_alpha: float, sigma_beta: float) -> Callable[[], tuple[float, float]]:
    """Seconds that pydensecrf2 takes to build its lattice of an image and to filter two labels once."""
    from pydensecrf.densecrf import DIAG_KERNEL, NO_NORMALIZATION, DenseCRF

    axes = np.meshgrid(*map(np.arange, image.shape), indexing="ij")
    features = np.stack([*(axis / sigma_alpha for axis in axes), image.numpy() / sigma_beta])
    features = np.ascontiguousarray(features.reshape(4, -1), dtype=np.float32)

    def run() -> tuple[float, float]:
        crf = DenseCRF(features.shape[1], 2)
        crf.setUnaryEnergy(np.zeros((2, features.shape[1]), dtype=np.float32))
        start = time.perf_counter()
        crf.addPairwiseEnergy(features, compat=1, kernel=DIAG_KERNEL, normalization=NO_NORMALIZATION)
        built = time.perf_counter()
        first, state, auxiliary = crf.startInference()
        crf.stepInference(first, state, auxiliary)
        return built - start, time.perf_counter() - built

    return run


def peak_mb(scales: tuple[float, float]) -> float:
    """Memory that one forward and backward pass adds to a process that holds its input already."""
    image, probability = (volume[None, None] for volume in example(SPEED_SHAPE))
    forward_backward(CRFLoss(*scales), image[..., :8, :8, :8], probability[..., :8, :8, :8])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forward_backward(CRFLoss(*scales), image, probability)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def seconds(loss: CRFLoss, image: Tensor, probability: Tensor) -> float:
    if image.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    forward_backward(loss, image, probability)
    if image.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def speed_table(repeats: int) -> Table:
    title = f"{'x'.join(map(str, SPEED_SHAPE))}, batch 1, {torch.get_num_threads()} threads, median of {repeats}"
    table = Table(title=title)
    for column in ("sigma_alpha", "sigma_beta", "ours s", "peak MB", "lattice build s", "filter s", "ours / peer"):
        table.add_column(column, justify="right")
    image, probability = example(SPEED_SHAPE)
    has_peer = importlib.util.find_spec("pydensecrf") is not None
    for scales in SCALES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            memory = fresh.submit(peak_mb, scales).result()
        peer, loss = lattice(image, *scales) if has_peer else None, CRFLoss(*scales)
        ours: list[float] = []
        theirs: list[tuple[float, float]] = []
        for _ in range(repeats + 1):
            ours.append(seconds(loss, image[None, None], probability[None, None]))
            theirs += [peer()] if peer else []
        median = statistics.median(ours[1:])
        row = [*map(str, scales), f"{median:.3f}", f"{memory:.0f}"]
        if peer:
            build, filtering = (statistics.median(column) for column in zip(*theirs[1:], strict=True))
            row += [f"{build:.3f}", f"{filtering:.3f}", f"{median / (build + filtering):.2f}"]
        table.add_row(*row)
    return table


def gpu_table(repeats: int, batch: int = 6) -> Table:
    table = Table(title=f"{torch.cuda.get_device_name()}, batch {batch}, median of {repeats}")
    for column in ("sigma_alpha", "sigma_beta", "ms", "peak MB"):
        table.add_column(column, justify="right")
    image, probability = (volume.expand(batch, 1, *SPEED_SHAPE).cuda() for volume in example(SPEED_SHAPE))
    for scales in SCALES:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        times = [seconds(CRFLoss(*scales), image, probability) for _ in range(repeats + 1)]
        memory = (torch.cuda.max_memory_allocated() - before) / 2**20
        table.add_row(*map(str, scales), f"{1000 * statistics.median(times[1:]):.1f}", f"{memory:.0f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each method")
    repeats = parser.parse_args().repeats
    CONSOLE.print(error_table())
    CONSOLE.print(speed_table(repeats))
    if torch.cuda.is_available():
        CONSOLE.print(gpu_table(repeats))


if __name__ == "__main__":
    main()
