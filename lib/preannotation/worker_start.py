"""Loaded by dask in each worker process of this machine when it begins."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leaves a Ctrl-C to the script, which ends its workers; a terminal sends it to all of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
