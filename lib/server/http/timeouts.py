"""Close connections of stalled clients; uvicorn itself waits for the head of a request without a limit."""

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
"""Limit of the kernel's send buffer. A larger buffer would hide for megabytes whether the client reads its answer."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of every connection.

    Args:
        head_s: Time to receive the head of a request, from the start of the connection or the end of the last answer.
        drain_s: Longest time in which the client reads nothing of an answer.
        connections: Largest number of open connections; beyond it, those that wait longest for their client are
            closed. None: half of the files that the process may open.
        check_s: Interval of the checks of each connection.
    """

    head_s: float = 10.0
    drain_s: float = 60.0
    connections: int | None = None
    check_s: float = 1.0


def limit_connections(config: uvicorn.Config, limits: ConnectionLimits = ConnectionLimits()) -> None:  # noqa: B008
    """Apply limits to the connections of a server; call this before it listens, such as in its lifespan."""
    files = raise_file_limit()
    if not config.loaded:
        config.load()
    max_connections = limits.connections or files // 2
    # asyncio accepts the whole backlog at once; when it runs out of files, it stops accepting for a second.
    config.backlog = min(config.backlog, max(1, (files - max_connections) // 2))
    config.http_protocol_class = _limited(config.http_protocol_class, limits, max_connections)


def raise_file_limit() -> int:
    """Raise the process's limit of open files, which includes connections, as far as allowed; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft == resource.RLIM_INFINITY or soft >= limit:
        return MAX_FILES if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def _limited(protocol: Any, limits: ConnectionLimits, max_connections: int) -> type[asyncio.Protocol]:
    """Subclass one of uvicorn's HTTP/1.1 protocols, all of which have `cycle`, `connections` and `transport`."""

    class Limited(protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._waited_for: object = None  # the last request, after which the client has to send another one
            self.waiting_since = self._read_since = time.monotonic()
            self._is_blocked = False
            self._unsent = 0
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            self._timer = self.loop.call_later(limits.check_s, self._check)
            if len(self.connections) > max_connections:
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
                self._unsent, self._read_since = unsent, now
            if unsent > 0:
                is_late = now - self._read_since > limits.drain_s
            else:
                is_late = self.is_waiting_for_head and now - max(self.waiting_since, self._read_since) > limits.head_s
            if is_late:
                self.abort()

        def abort(self) -> None:
            # Removed from the set now, so that the next connection does not choose this one again.
            self.connections.discard(self)
            self.transport.abort()

    return Limited


def _longest_waiting(connections: Any) -> Any:
    """Return the connection that waits longest for its client; the newest one if none waits."""
    waiting = [one for one in connections if one.is_waiting_for_client]
    if waiting:
        return min(waiting, key=lambda one: one.waiting_since)
    return max(connections, key=lambda one: one.waiting_since)
