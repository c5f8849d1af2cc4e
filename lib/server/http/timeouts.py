"""Close connections whose client stalls; uvicorn itself waits for the head of a request without a limit."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from dataclasses import dataclass
from typing import Any

import uvicorn

MAX_FILES = 65536
UNSENT_BYTES = 128 * 1024
"""What the kernel holds of an answer that the client has no room for yet; of more, it would not tell for megabytes
whether the client takes any."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of every connection.

    Args:
        head_s: for the head of a request, from the opening of the connection, or from when the last answer was taken.
        drain_s: for the client to take more of what waits to be sent.
        connections: kept open at once; of more, those are closed that have waited for their client for longest.
            None takes half of the files that the process may open.
        check_s: how often each connection is looked at.
    """

    head_s: float = 10.0
    drain_s: float = 60.0
    connections: int | None = None
    check_s: float = 1.0


def limit_connections(config: uvicorn.Config, limits: ConnectionLimits = ConnectionLimits()) -> None:  # noqa: B008
    """Hold the connections of a server to limits; to be called before it listens, as from its lifespan."""
    files = raise_file_limit()
    if not config.loaded:
        config.load()
    most = limits.connections or files // 2
    # asyncio accepts as many at once before it looks at any; without files left it accepts none for a second.
    config.backlog = min(config.backlog, max(1, (files - most) // 2))
    config.http_protocol_class = _limited(config.http_protocol_class, limits, most)


def raise_file_limit() -> int:
    """Allow this process as many open files, which connections are too, as it may have; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_FILES if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _limited(protocol: Any, limits: ConnectionLimits, most: int) -> type[asyncio.Protocol]:
    """A subclass of one of uvicorn's protocols for HTTP/1.1, all of which have `cycle`, `connections`, `transport`."""

    class Limited(protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._waited_for: object = None  # the request behind which the client has to send another
            self.waiting_since = self._taken_since = time.monotonic()
            self._is_blocked = False
            self._unsent = 0
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            self._timer = self.loop.call_later(limits.check_s, self._check)
            if len(self.connections) > most:
                _longest_waiting(self.connections).abort()

        def connection_lost(self, error: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(error)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._is_blocked = True

        def resume_writing(self) -> None:
            super().resume_writing()
            self._is_blocked = False

        @property
        def is_waiting_for_head(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        @property
        def is_waiting_for_client(self) -> bool:
            return self.is_waiting_for_head or self.cycle.more_body or self._is_blocked

        def _check(self) -> None:
            self._timer = self.loop.call_later(limits.check_s, self._check)
            now = time.monotonic()
            if self.cycle is not self._waited_for or not self.is_waiting_for_client:
                self._waited_for, self.waiting_since = self.cycle, now
            unsent = self.transport.get_write_buffer_size()
            if unsent != self._unsent:
                self._unsent, self._taken_since = unsent, now
            if unsent > 0:
                is_late = now - self._taken_since > limits.drain_s
            else:
                is_late = self.is_waiting_for_head and now - max(self.waiting_since, self._taken_since) > limits.head_s
            if is_late:
                self.abort()

        def abort(self) -> None:
            # Out of the set at once, so that the next connection does not choose this one again.
            self.connections.discard(self)
            self.transport.abort()

    return Limited


def _longest_waiting(connections: Any) -> Any:
    """Of all connections the one that waits for its client for longest; where none waits, the newest."""
    waiting = [one for one in connections if one.is_waiting_for_client]
    if waiting:
        return min(waiting, key=lambda one: one.waiting_since)
    return max(connections, key=lambda one: one.waiting_since)
