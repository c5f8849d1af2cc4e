"""Start workers on this machine, or connect to those of a scheduler."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import dask
import torch
from distributed import Client, LocalCluster
from tornado.ioloop import PeriodicCallback

from lib.server.process.network import is_loopback

CONNECT_TIMEOUT_S = 15
WORKERS_TIMEOUT_S = 60
SCALE_EVERY_S = 10

SETTINGS = {
    # Workers have no queues: a study that waits behind one that kills the worker would be counted as a failure too.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 2,
    "distributed.comm.timeouts.connect": f"{CONNECT_TIMEOUT_S}s",
    "distributed.worker.daemon": True,
    # A worker that takes longer to restart is replaced.
    "distributed.deploy.lost-worker-timeout": "60s",
    "distributed.admin.system-monitor.gil.enabled": False,
}

# Their messages, mostly of lost connections, are replaced by those of ClusterError.
_SILENCED_LOGGERS = (
    *("distributed", "distributed.client", "distributed.core", "distributed.comm", "distributed.batched"),
)


class ClusterError(RuntimeError):
    """Error of workers or scheduler, with a message for the user."""


@contextmanager
def workers(scheduler: str | None, count: int | None) -> Iterator[Client]:
    """Connect to a cluster, or start one, until the end of the block.

    Args:
        scheduler: URL such as tcp://10.0.0.5:8786, or tls://... with the certificates of dask's configuration; None
            for a cluster on this machine, which listens on the loopback interface only.
        count: number of workers on this machine; default: one per GPU, or one per core without GPUs.

    Raises:
        ClusterError: the scheduler does not answer, or has no workers.
    """
    for name in _SILENCED_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set(SETTINGS):
        client = _local(count) if scheduler is None else _of_scheduler(scheduler)
        cluster = client.cluster if scheduler is None else None
        try:
            _wait_for_workers(client, scheduler)
            yield client
        finally:
            client.close(timeout=5)
            if cluster is not None:
                cluster.close(timeout=10)


def is_open_to_others(scheduler: str) -> bool:
    """Tell whether other machines can send tasks, which are code, to a scheduler without authentication."""
    parts = urlsplit(scheduler)
    return parts.scheme != "tls" and not is_loopback(parts.hostname or "")


def _local(count: int | None) -> Client:
    n_workers = count or torch.cuda.device_count() or len(os.sched_getaffinity(0))
    cluster = LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        memory_limit="auto",
        preload=["lib.preannotation.worker_start"],
        silence_logs=50,
    )
    _keep_scale(cluster, n_workers)
    return Client(cluster)


def _keep_scale(cluster: LocalCluster, count: int) -> None:
    """Let dask replace workers that were killed while starting, which their nannies do not restart."""

    def watch() -> None:
        PeriodicCallback(lambda: cluster.scale(count), 1000 * SCALE_EVERY_S).start()

    assert cluster.loop is not None
    cluster.loop.add_callback(watch)


def _of_scheduler(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"The scheduler {address} does not answer; expected one such as tcp://10.0.0.5:8786, started by "
            "`dask scheduler`."
        ) from error


def _wait_for_workers(client: Client, scheduler: str | None) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKERS_TIMEOUT_S)
    except TimeoutError as error:
        where = "this machine" if scheduler is None else f"the scheduler {scheduler}"
        raise ClusterError(f"No worker of {where} was ready within {WORKERS_TIMEOUT_S} s; start some.") from error
