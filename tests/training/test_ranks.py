"""Processes that train together: shared values, and the gradient of one large batch."""

import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.data.patches import Patch, PatchBatch
from lib.geometry.boxes import Box
from lib.training.budget import TrainingBudget, make_optimizer
from lib.training.hyperparameters import Hyperparameters
from lib.training.loop import DivergedError, train
from lib.training.objective import InExtremISObjective, ObjectiveValue
from lib.training.ranks import LostRankError, Ranks
from tests.physical import l_shape

LABELS = ("lesion", "cyst")
SIZE = 2

pytestmark = pytest.mark.slow  # starts processes


def together(function, folder):
    """Return the results of a function of the ranks on each of two processes."""
    torch.multiprocessing.spawn(_rank, (function, str(folder)), nprocs=SIZE)
    return [torch.load(folder / f"{rank}.pt") for rank in range(SIZE)]


def _rank(rank, function, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=SIZE)
    torch.save(function(Ranks(rank, SIZE, rank, SIZE)), Path(folder) / f"{rank}.pt")
    if dist.is_initialized():
        with suppress(RuntimeError):  # the other process has ended
            dist.barrier()
        dist.destroy_process_group()


# Values


def shared_values(ranks):
    return {
        "mean": ranks.mean([ranks.rank, 3]),
        "of_first": ranks.of_first(ranks.rank + 0.5),
        "bytes": list(ranks.bytes_of_first(bytes(range(256)) if ranks.is_first else None)),
        "other_length": list(ranks.bytes_of_first(bytes(ranks.rank))),
        "last_is_true": ranks.first_true(ranks.rank == SIZE - 1),
        "all_are_true": ranks.first_true(True),
        "none_is_true": ranks.first_true(False),
    }


def test_values_are_shared(tmp_path):
    expected = {"mean": [0.5, 3.0], "of_first": 0.5, "bytes": list(range(256)), "other_length": []}
    expected |= {"last_is_true": 1, "all_are_true": 0, "none_is_true": None}

    assert together(shared_values, tmp_path) == [expected, expected]


def test_single_process():
    alone = Ranks()

    assert alone.is_first and alone.mean([2, 3]) == [2.0, 3.0]
    assert (alone.of_first(0.5), alone.bytes_of_first(b"x")) == (0.5, b"x")
    assert (alone.first_true(True), alone.first_true(False)) == (0, None)
    network = nn.Conv3d(1, 2, 1)
    assert alone.distributed(network, torch.device("cpu")) is network


# The gradient


def patch(seed, kind):
    """Make a patch (16, 12, 12) with a structure and the annotations of `kind`."""
    generator = torch.Generator().manual_seed(seed)
    structure = torch.from_numpy(l_shape()[:16, :12, :12] > 500)
    assert structure.any()
    image = structure.float() + 0.2 * torch.randn(structure.shape, generator=generator)
    points = ExtremePoints.from_clicks("lesion", simulated_extreme_points(structure.numpy()))
    box = torch.from_numpy(_inside(Box.around(points.foreground_voxel).relaxed(1, image.shape), image.shape))
    return {
        "nothing": Patch(image),
        "clicks": Patch(image, (points,), (box,)),
        "clicks and their mask": Patch(image, (points,), (box,), click_mask=structure.byte()),
        "all": Patch(image, mask=structure.byte(), mask_labels=LABELS),
    }[kind]


def _inside(box, shape):
    inside = np.zeros(shape, bool)
    inside[box.slices] = True
    return inside


KINDS = ["clicks", "nothing", "clicks and their mask", "all", "all", "clicks and their mask"]
"""Annotations of the patches; the first half is for one process."""


def patches(first, last):
    return PatchBatch.of([patch(seed, kind) for seed, kind in enumerate(KINDS)][first:last])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(4, 1 + len(LABELS), 1))


def gradient(batch, ranks):
    of = network()
    h = Hyperparameters.of_preset("cpu")
    assert min(h.focal_weight, h.crf_weight, h.click_mask_weight) > 0
    objective = InExtremISObjective(LABELS, (1.0, 1.0, 1.0), h, ranks)
    distributed = ranks.distributed(of, torch.device("cpu"))
    objective(batch, distributed(batch.image)).loss.backward()
    return torch.cat([weight.grad.flatten() for weight in of.parameters()])


def own_gradient(ranks):
    half = len(KINDS) // SIZE
    return gradient(patches(ranks.rank * half, (ranks.rank + 1) * half), ranks)


def test_gradient_of_all_processes_is_that_of_one_batch(tmp_path):
    found = together(own_gradient, tmp_path)

    expected = gradient(patches(0, len(KINDS)), Ranks())
    for one in found:
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-7)


# The loop


class Square:
    """Mean square of the logits, which is NaN at one call."""

    def __init__(self, broken_at):
        self.calls, self.broken_at = 0, broken_at

    def __call__(self, batch, logits):
        self.calls += 1
        factor = float("nan") if self.calls == self.broken_at else 1.0
        return ObjectiveValue(factor * logits.square().mean(), {}, torch.empty(0))


def steps(ranks, objective):
    h = Hyperparameters(optimizer="sgd", momentum=0.0)
    of, batch = network(), PatchBatch.of([patch(ranks.rank, "nothing")])
    # The ranks have different budgets, like machines with different clocks.
    budget = TrainingBudget(4 + ranks.rank)
    optimizer = make_optimizer(of, h)
    return of, train(of, optimizer, iter(lambda: batch, 0), objective, h, budget, torch.device("cpu"), ranks)


def trained(ranks):
    of, loop = steps(ranks, Square(None))
    return [step.used for step in loop], torch.cat([weight.detach().flatten() for weight in of.parameters()])


def test_processes_end_together_with_the_same_weights(tmp_path):
    (used, weights), (others_used, others_weights) = together(trained, tmp_path)

    assert used == others_used == [0.25, 0.5, 0.75, 1.0]
    torch.testing.assert_close(weights, others_weights, rtol=0, atol=0)


def diverged(ranks):
    _, loop = steps(ranks, Square(2 if ranks.rank == 1 else None))
    with pytest.raises(DivergedError) as error:
        list(loop)
    return str(error.value)


def test_non_finite_loss_of_one_process_ends_all(tmp_path):
    first, second = together(diverged, tmp_path)

    assert first.startswith("The loss became infinite, or no number, in another process; try again")
    assert second.startswith("The loss became nan; try again")


def left_alone(ranks):
    if ranks.rank == 1:
        dist.destroy_process_group()
        return ""
    with pytest.raises(LostRankError) as error:
        while True:
            ranks.mean([1])
    threading.Event().wait(0.1)
    return str(error.value)


def test_lost_process_is_detected(tmp_path):
    message, _ = together(left_alone, tmp_path)

    assert message.startswith("Another process of the training has ended, or cannot be reached (")
