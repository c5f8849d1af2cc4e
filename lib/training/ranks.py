"""Train one network in several processes, with torch.distributed."""

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
"""Maximum time that a rank waits for another, for example while the first one scores a network."""


class LostRankError(RuntimeError):
    """Another process of the training has ended; the message is for the user."""


def is_rank() -> bool:
    """Tell whether this process is one of several that were started to train together."""
    return bool(dist.is_torchelastic_launched())


def local_ranks() -> int:
    """Return the number of processes of this training on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if is_rank() else 1


@dataclass(frozen=True)
class Ranks:
    """Processes of one training, seen from one of them. Without arguments: a single process.

    All ranks call the same methods in the same order. Each method raises LostRankError if another rank has ended.

    Attributes:
        rank: number of this process, from 0; the first one writes files, scores and publishes.
        size: number of processes on all machines.
        local_rank, local_size: number of this process, and of processes, on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[Ranks]:
        """Join the ranks started by torchrun until the end of the block; a single rank in any other process."""
        if not is_rank():
            yield cls()
            return
        has_gpu = torch.cuda.is_available()
        local_rank = int(os.environ["LOCAL_RANK"])
        if has_gpu:
            torch.cuda.set_device(local_rank)
        with _lost_rank_errors():
            dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=TIMEOUT)
        yield cls(dist.get_rank(), dist.get_world_size(), local_rank, local_ranks())
        with _lost_rank_errors():
            dist.barrier()  # closing connections that another rank still uses would raise errors there
        dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def device(self, default: torch.device) -> torch.device:
        """Return the GPU of this rank; for a single process, the default."""
        if self.size == 1 or not torch.cuda.is_available():
            return default
        return torch.device("cuda", self.local_rank)

    def distributed(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Wrap the network: weights of the first rank, gradients averaged over all ranks.

        On GPUs, batch normalisation also uses the patches of all ranks.
        """
        if self.size == 1:
            return network
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        with _lost_rank_errors():
            return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def mean(self, counts: Sequence[int]) -> list[float]:
        """Return the mean of each count over the ranks."""
        if self.size == 1:
            return [float(count) for count in counts]
        total = torch.tensor(counts, dtype=torch.float64)
        with _lost_rank_errors():
            dist.all_reduce(total)
        return [value / self.size for value in total.tolist()]

    def first_true(self, condition: bool) -> int | None:
        """Return the first rank whose condition is true, or None."""
        if self.size == 1:
            return 0 if condition else None
        first = torch.tensor(self.rank if condition else self.size)
        with _lost_rank_errors():
            dist.all_reduce(first, dist.ReduceOp.MIN)
        return int(first) if first < self.size else None

    def of_first(self, value: float) -> float:
        """Return the value of the first rank."""
        if self.size == 1:
            return value
        sent = torch.tensor(value, dtype=torch.float64)
        with _lost_rank_errors():
            dist.broadcast(sent, 0)
        return float(sent)

    def bytes_of_first(self, content: bytes | None) -> bytes:
        """Return the bytes of the first rank; those of the others are ignored."""
        if self.size == 1:
            assert content is not None
            return content
        length = int(self.of_first(0 if content is None else len(content)))
        sent = torch.empty(length, dtype=torch.uint8)
        if self.is_first and content:
            sent = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        with _lost_rank_errors():
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
    def lost_rank_errors(self) -> Iterator[None]:
        """Raise LostRankError if communication in the block fails."""
        if self.size == 1:
            yield
            return
        with _lost_rank_errors():
            yield


ALONE = Ranks()


@contextmanager
def _lost_rank_errors() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LostRankError(f"Another process of the training has ended, or cannot be reached ({cause}).") from error
