"""Measure the CRF loss: error against the exact O(N^2) sum, time and memory against pydensecrf2's lattice.

Run with `python -m benchmarks.crf`; docs/results/speed.md keeps what it printed. The peer is left out if it
is not installed (`pip install pydensecrf2`).
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lib.demo.demo_studies import DemoStudySettings, make_demo_study
from lib.losses.crf import CRFLoss
from lib.networks.unet2d5 import UNet2d5, plan_stages

SCALES = [(15.0, 0.05), (15.0, 0.5), (5.0, 0.05), (5.0, 0.5)]
NODES_PER_SIGMA = [1.0, 1.1, 1.5, 2.0]
ERROR_SHAPE = (32, 32, 16)
SPEED_SHAPE = (224, 224, 48)
# Small patches for training on a CPU: shape, batch, stages and channels of the network.
PATCH_SHAPE, PATCH_BATCH, PATCH_LEVELS, PATCH_CHANNELS = (64, 64, 24), 2, 4, 8
CONSOLE = Console(width=120)


def example(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Make a z-scored image with texture, noise and a few bright outliers, and a soft ball as probability."""
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
    """Compute R and its gradient in float64, pair by pair."""
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


class Seconds(NamedTuple):
    """Time by the clock, and that of all threads together, which other work on the machine disturbs less."""

    wall: float
    cpu: float


def timed(run: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def best(times: Sequence[Seconds]) -> Seconds:
    return Seconds(*map(min, zip(*times, strict=True)))


def lattice(image: Tensor, sigma_alpha: float, sigma_beta: float) -> Callable[[], Seconds]:
    """Measure the time in which pydensecrf2 builds its lattice of an image and filters two labels once."""
    from pydensecrf.densecrf import DIAG_KERNEL, NO_NORMALIZATION, DenseCRF

    axes = np.meshgrid(*map(np.arange, image.shape), indexing="ij")
    features = np.stack([*(axis / sigma_alpha for axis in axes), image.numpy() / sigma_beta])
    features = np.ascontiguousarray(features.reshape(4, -1), dtype=np.float32)

    def run() -> Seconds:
        crf = DenseCRF(features.shape[1], 2)
        crf.setUnaryEnergy(np.zeros((2, features.shape[1]), dtype=np.float32))
        pairwise = {"compat": 1, "kernel": DIAG_KERNEL, "normalization": NO_NORMALIZATION}
        build = timed(lambda: crf.addPairwiseEnergy(features, **pairwise))
        state = crf.startInference()
        filtering = timed(lambda: crf.stepInference(*state))
        return Seconds(build.wall + filtering.wall, build.cpu + filtering.cpu)

    return run


def speed_images() -> dict[str, Tensor]:
    """Z-scored images of `SPEED_SHAPE`: synthetic, of a demo study, and as if a few of its tissues were very bright."""
    study, _ = make_demo_study(0, DemoStudySettings(shape=SPEED_SHAPE, spacing_mm=(0.5, 0.5, 1.0)))
    demo = torch.from_numpy(np.asarray(study.dataobj, dtype=np.float32))
    long_tail = torch.sinh(2 * (demo - demo.mean()) / demo.std())
    images = {"textured, outliers": example(SPEED_SHAPE)[0], "demo study": demo, "long tail": long_tail}
    return {name: (image - image.mean()) / image.std() for name, image in images.items()}


def memory_mb(field: str) -> float:
    """Return the resident memory of this process, now ("VmRSS") or at its peak ("VmHWM"). Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak_mb(image: Tensor, scales: tuple[float, float]) -> float:
    """Memory that one forward and backward pass adds to a process that holds its input already."""
    image, probability = image[None, None], example(SPEED_SHAPE)[1][None, None]
    forward_backward(CRFLoss(*scales), image[..., :8, :8, :8], probability[..., :8, :8, :8])
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    before = memory_mb("VmRSS")
    forward_backward(CRFLoss(*scales), image, probability)
    return memory_mb("VmHWM") - before


def seconds(loss: CRFLoss, image: Tensor, probability: Tensor) -> Seconds:
    """Cost of one forward and backward pass."""

    def run() -> None:
        forward_backward(loss, image, probability)
        if image.is_cuda:
            torch.cuda.synchronize()

    return timed(run)


def speed_table(images: Mapping[str, Tensor], repeats: int) -> Table:
    title = f"{'x'.join(map(str, SPEED_SHAPE))}, batch 1, {torch.get_num_threads()} threads, best of {repeats} in turns"
    table = Table(title=title)
    columns = ("image", "range, sd", "sigmas", "ours s", "CPU s", "MB", "lattice s", "CPU s", "ours / lattice", "CPU")
    for column in columns:
        table.add_column(column, justify="right")
    _, probability = example(SPEED_SHAPE)
    has_peer = importlib.util.find_spec("pydensecrf") is not None
    for name, image in images.items():
        for scales in SCALES:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
                memory = fresh.submit(peak_mb, image, scales).result()
            peer, loss = lattice(image, *scales) if has_peer else None, CRFLoss(*scales)
            ours: list[Seconds] = []
            theirs: list[Seconds] = []
            for _ in range(repeats):
                ours.append(seconds(loss, image[None, None], probability[None, None]))
                theirs += [peer()] if peer else []
            row = [name, f"{float(image.max() - image.min()):.0f}", "{:g}, {:g}".format(*scales)]
            row += [f"{value:.2f}" for value in best(ours)] + [f"{memory:.0f}"]
            if theirs:
                row += [f"{value:.2f}" for value in best(theirs)]
                row += [f"{mine / other:.2f}" for mine, other in zip(best(ours), best(theirs), strict=True)]
            table.add_row(*row)
    return table


def knob_table(image: Tensor, repeats: int) -> Table:
    """Measure error and time at the paper's scales and at the most expensive ones."""
    title = f"CPU s for each nodes_per_sigma, {torch.get_num_threads()} threads, best of {repeats}, demo study"
    table = Table(title=title)
    for column in ("sigma_alpha", "sigma_beta", *map(str, NODES_PER_SIGMA)):
        table.add_column(column, justify="right")
    inputs = image[None, None], example(SPEED_SHAPE)[1][None, None]
    for scales in (SCALES[0], SCALES[2]):
        losses = [CRFLoss(*scales, nodes_per_sigma=nodes) for nodes in NODES_PER_SIGMA]
        times = [best([seconds(loss, *inputs) for _ in range(repeats)]) for loss in losses]
        table.add_row(*map(str, scales), *(f"{time.cpu:.2f}" for time in times))
    return table


def training_step_table(image: Tensor, repeats: int) -> Table:
    """Measure the loss beside a forward and backward pass of the network, on small patches."""
    network = UNet2d5(1, 2, *plan_stages((0.5, 0.5, 1.0), PATCH_LEVELS), base_channels=PATCH_CHANNELS)
    loss = CRFLoss()
    x, y, z = PATCH_SHAPE
    patches = torch.stack([image[n * x : (n + 1) * x, y : 2 * y, :z] for n in range(1, 1 + PATCH_BATCH)])[:, None]
    probability = torch.softmax(network(patches), dim=1)[:, 1:].detach()
    steps, losses = [], []
    for _ in range(repeats):
        steps.append(timed(lambda: network(patches).square().mean().backward()))
        losses.append(seconds(loss, patches, probability))
    size = f"{'x'.join(map(str, PATCH_SHAPE))}, batch {PATCH_BATCH}"
    table = Table(title=f"{size}, {torch.get_num_threads()} threads, best of {repeats}")
    for column in ("", "network ms", "loss ms", "loss / network"):
        table.add_column(column, justify="right")
    for name, step, mine in zip(Seconds._fields, best(steps), best(losses), strict=True):
        table.add_row(name, f"{1000 * step:.0f}", f"{1000 * mine:.0f}", f"{mine / step:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each method")
    parser.add_argument("--threads", type=int, help="threads of the loss and the network; the lattice has one")
    arguments = parser.parse_args()
    repeats = arguments.repeats
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    images = speed_images()
    CONSOLE.print(error_table())
    CONSOLE.print(speed_table(images, repeats))
    CONSOLE.print(knob_table(images["demo study"], repeats))
    CONSOLE.print(training_step_table(images["demo study"], repeats))


if __name__ == "__main__":
    main()
