"""Turn off telemetry, and proxies for this machine."""

from __future__ import annotations

import os

# MLflow reports each training unless one of these is set.
NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def stay_offline() -> None:
    """Set the environment variables of this process and its children; existing values are kept.

    Call this before MLflow is imported, which reads the variables at import.
    """
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in LOOPBACK if host not in hosts]
    # Libraries read either of them.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)
