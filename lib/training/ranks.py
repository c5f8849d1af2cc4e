"""Let several processes train one network together, by torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = timedelta(hours=2)
"""How long a rank waits for another, such as for the first one while it scores a network."""


class LostRankError(RuntimeError):
    """Another process of the training has ended; the text is for the user."""


def is_rank() -> bool:
    """Is this process one of several that were started to train together?"""
    return bool(dist.is_torchelastic_launched())


def ranks_here() -> int:
    """How many processes of this training run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if is_rank() else 1


@dataclass(frozen=True)
class Ranks:
    """The processes of one training, as one of them sees them. Without arguments: one process alone.

    All ranks call the same methods in the same order. Each method raises LostRankError where another rank has ended.

    Attributes:
        rank: number of this process, from 0; the first one writes files, scores and publishes.
        size: number of processes on all machines.
        local_rank, local_size: the same among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[Ranks]:
        """The ranks that torchrun has started, until the end of the block; one alone in any other process."""
        if not is_rank():
            yield cls()
            return
        has_gpu = torch.cuda.is_available()
        local_rank = int(os.environ["LOCAL_RANK"])
        if has_gpu:
            torch.cuda.set_device(local_rank)
        with _lost_rank_told():
            dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=TIMEOUT)
        yield cls(dist.get_rank(), dist.get_world_size(), local_rank, ranks_here())
        with _lost_rank_told():
            dist.barrier()  # a rank that closes its connections would disturb one that still uses them
        dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def device(self, wanted: torch.device) -> torch.device:
        """The GPU of this rank; of a process alone, the device that is wanted."""
        if self.size == 1 or not torch.cuda.is_available():
            return wanted
        return torch.device("cuda", self.local_rank)

    def distributed(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with the weights of the first rank, whose gradients are the mean of all ranks'.

        On GPUs batch normalisation is over the patches of all ranks as well.
        """
        if self.size == 1:
            return network
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        with _lost_rank_told():
            return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def mean(self, counts: Sequence[int]) -> list[float]:
        """Of each count, the mean over the ranks."""
        if self.size == 1:
            return [float(count) for count in counts]
        total = torch.tensor(counts, dtype=torch.float64)
        with _lost_rank_told():
            dist.all_reduce(total)
        return [value / self.size for value in total.tolist()]

    def first_true(self, condition: bool) -> int | None:
        """The first rank whose condition is true; None where none is."""
        if self.size == 1:
            return 0 if condition else None
        first = torch.tensor(self.rank if condition else self.size)
        with _lost_rank_told():
            dist.all_reduce(first, dist.ReduceOp.MIN)
        return int(first) if first < self.size else None

    def of_first(self, value: float) -> float:
        """The value of the first rank."""
        if self.size == 1:
            return value
        sent = torch.tensor(value, dtype=torch.float64)
        with _lost_rank_told():
            dist.broadcast(sent, 0)
        return float(sent)

    def bytes_of_first(self, content: bytes | None) -> bytes:
        """The bytes of the first rank; what the others give is ignored."""
        if self.size == 1:
            assert content is not None
            return content
        length = int(self.of_first(0 if content is None else len(content)))
        sent = torch.empty(length, dtype=torch.uint8)
        if self.is_first and content:
            sent = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        with _lost_rank_told():
            dist.broadcast(sent, 0)
        return sent.numpy().tobytes()

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Run the block on the first rank, then on the others."""
        if not self.is_first:
            self.of_first(0)
        yield
        if self.is_first:
            self.of_first(0)

    @contextmanager
    def told_of_lost_rank(self) -> Iterator[None]:
        """Turn failed communication in the block into LostRankError."""
        if self.size == 1:
            yield
            return
        with _lost_rank_told():
            yield


ALONE = Ranks()


@contextmanager
def _lost_rank_told() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LostRankError(f"Another process of the training has ended, or cannot be reached ({cause}).") from error
