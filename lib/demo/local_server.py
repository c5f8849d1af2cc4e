"""Start a server process for the demo and the tests."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import requests

from lib.demo.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]

_PORTS = range(15_000, 32_000)


class ServerError(RuntimeError):
    """Error of a server that did not start; its text ends with the end of the log."""


class LocalServer(ServerProcess):
    """Process of `monailabel start_server` with the app, on a port of the loopback interface.

    Args:
        studies: folder of images, or address of a DICOMweb archive.
        conf: `--conf` names and values.
        log: file for the output of the server.
        port: None takes a free one.
        environment: variables in addition to those of this process.
        certificate: files of a certificate for 127.0.0.1 and of its key, for HTTPS.
    """

    name, error = "The server", ServerError

    def __init__(
        self,
        studies: Path | str,
        conf: Mapping[str, str],
        log: Path,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"
        self.certificate = certificate
        command = [sys.executable, "-P", "-m", "lib.server.launch", "start_server"]
        command += ["--app", str(ROOT / "apps" / "inextremis"), "--studies", str(studies)]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += [word for name, value in conf.items() for word in ("--conf", name, value)]
        if certificate is not None:
            command += ["--ssl_certfile", str(certificate[0]), "--ssl_keyfile", str(certificate[1])]
        self.run(command, log, {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})})

    def is_ready(self) -> bool:
        """Tell whether the server answers."""
        verify = str(self.certificate[0]) if self.certificate else True
        return requests.get(f"{self.url}/health", timeout=10, verify=verify).ok


def free_port() -> int:
    """Return a free port of the loopback interface.

    It is below Linux's range for outgoing connections, which could take the port before the server does.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_free(port: int) -> bool:
    """Tell whether a port of the loopback interface is free."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
