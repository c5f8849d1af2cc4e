"""Turn off telemetry, and proxies for this machine."""

from __future__ import annotations

import os

# MLflow sends a record of each training unless one of these is set.
NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def stay_offline() -> None:
    """Sets this in the environment, for this process from here on and for those that it starts.

    To be called before MLflow is imported, which reads the variables then. Values that are there already stay.
    """
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in LOOPBACK if host not in hosts]
    # Libraries read the one or the other.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)
