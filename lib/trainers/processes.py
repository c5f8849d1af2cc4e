"""Run a training in several processes on the GPUs of one or more machines, with torchrun's launcher."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lib.trainers.background import pass_server_to_children
from lib.trainers.process_end import end_by_signal

logger = logging.getLogger(__name__)

GPUS = r"all|\d{1,2}(,\d{1,2}){0,15}"
JOIN_TIMEOUT_S = 600

_COMMAND = ("-m", "monailabel.interfaces.utils.app", "-m", "train", "-r")


class GPUError(ValueError):
    """The GPUs cannot be used; the message is for the user."""


@dataclass(frozen=True)
class Processes:
    """Number of processes and machines of a training.

    Attributes:
        per_machine: one process for each GPU.
        machines: number of machines, which all run the same command.
        meeting_point: HOST:PORT of one of the machines, reachable from the others; None for one machine.
    """

    per_machine: int = 1
    machines: int = 1
    meeting_point: str | None = None

    @property
    def count(self) -> int:
        return self.per_machine * self.machines


def require_gpus(gpus: object) -> str:
    """Return the text if this machine has these GPUs.

    Args:
        gpus: "all", or numbers such as "0,1".

    Raises:
        GPUError: the form is wrong, or a GPU does not exist.
    """
    if not isinstance(gpus, str) or not re.fullmatch(GPUS, gpus):
        raise GPUError(f"{str(gpus)[:80]!r} cannot be used; expected all, or numbers such as 0,1")
    if gpus == "all":
        return gpus
    numbers, there = [int(number) for number in gpus.split(",")], torch.cuda.device_count()
    missing = [number for number in numbers if number >= there]
    if missing:
        has = f"GPUs 0 to {there - 1}" if there > 1 else "GPU 0 only" if there else "no GPU"
        raise GPUError(f"there is no GPU {missing[0]}; this machine has {has}")
    if len(set(numbers)) < len(numbers):
        raise GPUError(f"{gpus} names a GPU twice; expected each once")
    return gpus


def processes_of(request: Mapping[str, Any]) -> Processes:
    """Return one process for each visible GPU; a single one if the request names a device, or without a GPU."""
    device = request.get("device")
    names_one = isinstance(device, str) and device not in ("", "cuda")
    return Processes(1 if names_one else max(1, torch.cuda.device_count()))


def train_in_processes(request: Mapping[str, Any], processes: Processes) -> None:
    """Run MONAI Label's training in several processes, and wait for their end.

    Args:
        request: of the training; MONAI Label's settings in the environment name the app and the studies.

    Raises:
        SystemExit: a process failed; the reason is at the end of the log.
    """
    # A process that fails logs the reason itself.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    pass_server_to_children()
    try:
        elastic_launch(_config(processes), sys.executable)(*_COMMAND, json.dumps(dict(request)))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            logger.error(end_by_signal(-failure.exitcode, f"process {rank} of {processes.count}"))
        raise SystemExit(1) from error
    except (RendezvousError, dist.DistError, TimeoutError) as error:
        logger.error(
            "The %d machines of the training did not meet at %s within %d s (%s); start the same command on each of "
            "them, and let them reach that port.",
            processes.machines,
            processes.meeting_point,
            JOIN_TIMEOUT_S,
            str(error).splitlines()[0],
        )
        raise SystemExit(1) from error


def _config(processes: Processes) -> LaunchConfig:
    is_alone = processes.meeting_point is None
    if is_alone:  # listen on the loopback interface only
        os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return LaunchConfig(
        min_nodes=processes.machines,
        max_nodes=processes.machines,
        nproc_per_node=processes.per_machine,
        rdzv_backend="c10d",
        rdzv_endpoint=processes.meeting_point or "127.0.0.1:0",
        rdzv_configs={"join_timeout": JOIN_TIMEOUT_S, "timeout": JOIN_TIMEOUT_S},
        run_id="inextremis",
        local_addr="127.0.0.1" if is_alone else None,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # leave no temporary folder
        max_restarts=0,
        monitor_interval=0.5,
    )
