"""Run a training at low priority beside the server, and end it with the server."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import torch

GPU_MEMORY_SHARE = 0.7
"""By default; what is left takes the server's network, its activations and the viewers of the same machine."""

_SERVER = "INEXTREMIS_SERVER_PID"


def yield_to_annotators(gpu_memory_share: float = GPU_MEMORY_SHARE, processes: int = 1) -> None:
    """Leaves one core, a part of the GPU's memory, and the first turn on all cores to click requests.

    Threads of a pool that wait for each other burn the time of a busy core: on two cores a training step
    with two threads took five times the processor time of one with a single thread.

    Args:
        gpu_memory_share: of each GPU's memory, in (0, 1]; where this process asks for more, torch says that the memory
            is out. Without a GPU it does not matter.
        processes: of this training on this machine, which share the cores.
    """
    os.nice(10)
    with suppress(OSError):  # where memory runs out, the training ends and not the server
        Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_num_threads(max(1, ((os.cpu_count() or 1) - 1) // processes))
    # Late in a training many activations are denormal, on which processors are an order of magnitude slower.
    torch.set_flush_denormal(True)
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.set_per_process_memory_fraction(gpu_memory_share, device)


def let_children_know_the_server() -> None:
    """Makes this process the server to those that it starts, see `end_with_server`."""
    os.environ[_SERVER] = str(os.getpid())


def is_child_of_server() -> bool:
    """Was this process started by a server?"""
    return os.environ.get(_SERVER) == str(os.getppid())


def end_with_server() -> None:
    """Ends this process, from now on, as soon as the server that started it has ended, however that ended.

    Nobody could see or stop a training without its server, and that of the next server would run beside it, on the
    same files. A process that no server started goes on.
    """
    if _SERVER not in os.environ:
        return
    server = int(os.environ[_SERVER])

    def watch() -> None:
        while os.getppid() == server:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="server-end", daemon=True).start()
