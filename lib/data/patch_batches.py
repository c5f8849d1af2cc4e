"""Draw reproducible batches of patches, in worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lib.data.patches import PatchBatch, PatchSource
from lib.geometry.volume import VolumeError

WORKERS_FROM_CORES = 4
MAX_WORKERS = 8


@dataclass(frozen=True)
class PatchStream:
    """Reproducible stream of batches: each patch depends on the seed and its number, not on the process.

    Attributes:
        batch_size: patches of a batch.
        seed: of all patches, at least 0.
        rank, ranks: number of this process and number of processes that train together. Batch i of all ranks starts
            with patch `i * ranks * batch_size`, for rank 0.
    """

    batch_size: int
    seed: int = 0
    rank: int = 0
    ranks: int = 1

    def draw(self, source: PatchSource, number: int) -> PatchBatch:
        """Draw the batch of a number, from 0.

        Raises:
            VolumeError: see `PatchSource.draw`.
        """
        first = (number * self.ranks + self.rank) * self.batch_size
        patches = []
        with torch.random.fork_rng(devices=[]):  # leaves torch's generator on the CPU unchanged
            for index in range(first, first + self.batch_size):
                torch.default_generator.manual_seed(
                    int(np.random.SeedSequence([self.seed, index]).generate_state(1, np.uint64)[0])
                )
                patches.append(source.draw())
        return PatchBatch.of(patches)


def patch_batches(source: PatchSource, stream: PatchStream, *, workers: int, pin_memory: bool) -> Iterator[PatchBatch]:
    """Yield batches without end.

    Args:
        workers: number of processes that draw in advance; 0 draws in this one. The batches are the same.
        pin_memory: pin the memory of images, for a GPU.

    Raises:
        VolumeError: none of the scans can be read.
    """
    loader = DataLoader(
        _Endless(source, stream), batch_size=None, num_workers=workers, pin_memory=pin_memory and workers > 0
    )
    for batch in loader:
        if isinstance(batch, VolumeError):
            raise batch
        yield batch


def spare_workers(ranks: int = 1) -> int:
    """Return the number of processes that draw patches: 0 on machines with few cores, which the network needs.

    Args:
        ranks: number of processes on this machine that train together and share its cores.
    """
    cores = (os.cpu_count() or 1) // ranks
    return min(MAX_WORKERS, cores - 2) if cores >= WORKERS_FROM_CORES else 0


class _Endless(IterableDataset):
    """Batches, or the error that ends them. Raised in a worker, its message would contain a traceback."""

    def __init__(self, source: PatchSource, stream: PatchStream) -> None:
        self.source, self.stream = source, stream

    def __iter__(self) -> Iterator[PatchBatch | VolumeError]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        try:
            for number in count(first, step):
                yield self.stream.draw(self.source, number)
        except VolumeError as error:
            yield error
