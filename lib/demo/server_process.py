"""Run a server in a process, until the end of a block."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

_LINES_OF_LOG = 15


class ServerProcess:
    """Server process whose output is a log; subclasses tell when it is ready.

    Attributes:
        name: for messages.
        url: address of the server.
        error: raised if the server does not start.
    """

    name: str
    url: str
    log: Path
    error: type[Exception]
    process: subprocess.Popen[bytes]

    def run(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start the process.

        Args:
            log: file for the output of the server.
            environment: variables; None takes those of this process.
        """
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # only the caller receives a Ctrl-C, and then stops the server
            )

    def is_ready(self) -> bool:
        """Tell whether the server answers; may raise a RequestException."""
        raise NotImplementedError

    def wait_until_ready(self, timeout_s: float = 120) -> None:
        """Wait until the server answers; raise `error` if it ends, or does not answer in time."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(requests.RequestException):
                if self.is_ready():
                    return
            time.sleep(0.2)
        lines = self.log.read_text(errors="replace").splitlines()[-_LINES_OF_LOG:]
        self.stop()
        raise self.error("\n".join([f"{self.name} at {self.url} did not start. Its log {self.log} ends with:", *lines]))

    def stop(self) -> None:
        """End the server and its child processes."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:  # on Ctrl-C too, because __exit__ is not called
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
