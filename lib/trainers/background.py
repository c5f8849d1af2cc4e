"""Run a training at low priority beside the server, and end it with the server."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import torch

GPU_MEMORY_SHARE = 0.7
"""Default; the rest is for the server's network, its activations, and viewers on the same machine."""

_SERVER = "INEXTREMIS_SERVER_PID"


def run_at_low_priority(gpu_memory_share: float = GPU_MEMORY_SHARE, processes: int = 1) -> None:
    """Run this process at low priority, and leave one core and a part of the GPU's memory to click requests.

    One core stays free because threads of a pool that wait for each other waste the time of a busy core.

    Args:
        gpu_memory_share: maximum share of the memory of each GPU, in (0, 1]; torch raises an error beyond it.
        processes: number of processes of this training on this machine, which share the cores.
    """
    os.nice(10)
    with suppress(OSError):  # without memory, the kernel ends the training and not the server
        Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_num_threads(max(1, ((os.cpu_count() or 1) - 1) // processes))
    # Late in a training many activations are denormal; arithmetic with them is an order of magnitude slower.
    torch.set_flush_denormal(True)
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.set_per_process_memory_fraction(gpu_memory_share, device)


def pass_server_to_children() -> None:
    """Register this process as the server of the processes that it starts, see `end_with_server`."""
    os.environ[_SERVER] = str(os.getpid())


def is_child_of_server() -> bool:
    """Tell whether this process was started by a server."""
    return os.environ.get(_SERVER) == str(os.getppid())


def end_with_server() -> None:
    """End this process as soon as the server that started it has ended.

    Otherwise nobody could stop the training, and a training of the next server would write the same files. This does
    nothing in a process that was not started by a server.
    """
    if _SERVER not in os.environ:
        return
    server = int(os.environ[_SERVER])

    def watch() -> None:
        while os.getppid() == server:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="server-end", daemon=True).start()
