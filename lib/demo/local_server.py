"""Start a server process for the demo and the tests."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import requests

ROOT = Path(__file__).resolve().parents[2]

_PORTS = range(15_000, 32_000)


class ServerError(RuntimeError):
    """The server did not start; its text ends with the server's last words."""


class LocalServer:
    """`monailabel start_server` with the app, on a port of the loopback interface.

    Args:
        studies: folder of images, or address of a DICOMweb archive.
        conf: `--conf` names and values.
        log: file for what the server prints.
        port: None takes a free one.
        environment: variables beside those of this process.
        certificate: files of a certificate for 127.0.0.1 and of its key, for HTTPS.
    """

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
        self.log = log
        command = [sys.executable, "-P", "-m", "lib.server.launch", "start_server"]
        command += ["--app", str(ROOT / "apps" / "inextremis"), "--studies", str(studies)]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += [word for name, value in conf.items() for word in ("--conf", name, value)]
        if certificate is not None:
            command += ["--ssl_certfile", str(certificate[0]), "--ssl_keyfile", str(certificate[1])]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                start_new_session=True,
            )

    def wait_until_ready(self, timeout_s: float = 120) -> None:
        """Raises: ServerError: it ended, or did not answer in time."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(requests.RequestException):
                verify = str(self.certificate[0]) if self.certificate else True
                if requests.get(f"{self.url}/health", timeout=10, verify=verify).ok:
                    return
            time.sleep(0.3)
        words = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        self.stop()
        raise ServerError(f"The server at {self.url} did not start. Its log {self.log} ends with:\n{words}")

    def stop(self) -> None:
        """Ends the server and the training that it may have started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, 15)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, 9)
                self.process.wait()

    def __enter__(self) -> LocalServer:
        try:
            self.wait_until_ready()
        except BaseException:  # a Ctrl-C too: nobody else knows of the process yet
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now.

    It is drawn from below the ports that Linux gives to outgoing connections: one of these may take it before the
    server does.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_free(port: int) -> bool:
    """Does nobody listen on this port of the loopback interface?"""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
