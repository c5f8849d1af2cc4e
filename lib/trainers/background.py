"""Manners of the training process towards the server that people are waiting for."""

from __future__ import annotations

import os

import torch


def yield_to_annotators() -> None:
    """Leaves one core, and the first turn on all of them, to click requests.

    Threads of a pool that wait for each other burn the time of a busy core: on two cores a training step
    with two threads took five times the processor time of one with a single thread.
    """
    os.nice(10)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))
    # Late in a training many activations are denormal, on which processors are an order of magnitude slower.
    torch.set_flush_denormal(True)
