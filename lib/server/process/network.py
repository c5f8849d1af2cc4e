"""Find the addresses that the server listens on, and require a login or encryption on them."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import uvicorn

EXIT_CODE = 2


class NetworkError(RuntimeError):
    """Address on which the server must not listen; the text is for the user who starts it."""


_ALL_ADDRESSES = ("", "0.0.0.0", "::")


@dataclass(frozen=True)
class Listening:
    """Starting uvicorn server.

    Args:
        config: Its configuration; changes take effect until the application has started.
        sockets: Sockets that a supervisor opened for it; without any, it opens its own.
        server: The server itself.
    """

    config: uvicorn.Config
    sockets: tuple[socket.socket, ...] = ()
    server: uvicorn.Server | None = None

    @property
    def url(self) -> str | None:
        """Address for browsers; None for sockets of a supervisor and Unix sockets."""
        if self.sockets or self.config.fd is not None or self.config.uds or not self.config.port:
            return None
        host = self.config.host or ""
        host = socket.gethostname() if host in _ALL_ADDRESSES else host
        scheme = "https" if self.config.ssl_certfile else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.config.port}"

    @property
    def addresses(self) -> list[str]:
        """Names or addresses that it listens on; "unix:" and a path for a Unix socket."""
        if self.sockets:
            return [_address(listener) for listener in self.sockets]
        if self.config.fd is not None:
            with socket.socket(fileno=os.dup(self.config.fd)) as listener:
                return [_address(listener)]
        if self.config.uds is not None:
            return [f"unix:{self.config.uds}"]
        return [self.config.host or "0.0.0.0"]


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    return str(name[0]) if isinstance(name, tuple) else f"unix:{name!s}"


def starting_server() -> Listening | None:
    """Return the uvicorn server whose application starts in this event loop; None if there is none."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return None
    for task in tasks:
        for frame in _frames(task.get_coro()):
            server = frame.f_locals.get("self")
            if isinstance(server, uvicorn.Server) and frame.f_code.co_name == "startup":
                return Listening(server.config, tuple(frame.f_locals.get("sockets") or ()), server)
    return None


def _frames(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of those that it awaits."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await


def require_login_beyond_loopback(server: Listening | None, *, allowed: bool) -> None:
    """Check that a server without a login is reachable from this machine only.

    Args:
        server: Result of `starting_server`.
        allowed: The setting `allow_network_without_login`.

    Raises:
        NetworkError: It listens beyond loopback, or at an unknown address, without a login.
    """
    open_to = _beyond_loopback(server)
    if open_to and not allowed:
        raise NetworkError(
            f"The server would listen on {', '.join(open_to)} without a login: everybody who reaches this machine "
            "could read and change the studies. Start it with --host 127.0.0.1, or with a login (--conf users FILE), "
            "or, where only people who may do so reach it, with --conf allow_network_without_login true."
        )


def require_encryption_beyond_loopback(server: Listening | None, proxies: Collection[str]) -> None:
    """Check that names, passwords and sessions never cross a network unencrypted.

    Args:
        server: Result of `starting_server`; the server requires a login.
        proxies: Addresses of proxies that encrypt for it (setting `trusted_proxies`).

    Raises:
        NetworkError: It listens beyond loopback, or at an unknown address, without encryption.
    """
    open_to = _beyond_loopback(server)
    if open_to and not (server and server.config.is_ssl) and not proxies:
        raise NetworkError(
            f"The server would listen on {', '.join(open_to)} without encryption, and passwords could be read on the "
            "network. Start it with a certificate (--tls-cert and --tls-key of scripts/start.sh), or on 127.0.0.1 "
            "behind a proxy of this machine, or name proxies elsewhere with --conf trusted_proxies ADDRESS."
        )


def _beyond_loopback(server: Listening | None) -> list[str]:
    addresses = server.addresses if server else ["an unknown address"]
    return [address for address in addresses if not is_loopback(address)]


def is_loopback(address: str) -> bool:
    """Tell whether an address is reachable from this machine only; of names, only localhost is."""
    if address == "localhost" or address.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def drop_server_header(config: uvicorn.Config) -> None:
    """Remove the header that names the server program."""
    config.server_header = False
    config.encoded_headers = [(name, value) for name, value in config.encoded_headers if name != b"server"]


def end_process(sentence: str) -> NoReturn:
    """Exit with code 2 and a sentence on stderr.

    If the application raised instead, even SystemExit, uvicorn would log a traceback and exit with code 3.
    """
    print(sentence, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_CODE)
