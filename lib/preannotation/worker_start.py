"""Set up worker processes of this machine; dask loads it when they start."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C, which a terminal sends to workers too: the script stops its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
