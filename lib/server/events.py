"""Stream changes to all connected browsers as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import HTTPException
from fastapi.concurrency import run_in_threadpool

logger = logging.getLogger(__name__)

MAX_LISTENERS = 64
LOOK_S = 1.0
"""Interval of polling for changes; at most one event of each kind is sent per interval."""

END_POLL_S = 0.1
"""Interval of checking whether the server is shutting down, for which all streams have to be closed."""

KEEP_ALIVE_S = 15.0

ChangesByKind = dict[str, Any]
"""Changes by the kind of the event; the `ids` of `studies` are a list."""


class _Listener:
    """Connected browser. At most one event of each kind is queued for it; a newer one replaces it."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self._queued: ChangesByKind = {}

    def put(self, changes: ChangesByKind) -> None:
        for kind, content in changes.items():
            if kind == "studies" and kind in self._queued:
                content = {"ids": sorted({*content["ids"], *self._queued[kind]["ids"]})}
            self._queued[kind] = content
        self.woken.set()

    def take(self) -> ChangesByKind:
        self.woken.clear()
        queued, self._queued = self._queued, {}
        return queued


class Events:
    """Events of a server, which polls for changes only while a browser is connected.

    Args:
        look: Returns the changes since its last call; runs in a thread.
        is_ending: Tells whether the server is shutting down, which waits for all answers.
        look_s: Interval of polling, in seconds.
        keep_alive_s: Interval of comments that keep the connection open, in seconds.
    """

    def __init__(
        self,
        look: Callable[[], ChangesByKind],
        is_ending: Callable[[], bool] = lambda: False,
        *,
        look_s: float = LOOK_S,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self.id = secrets.token_hex(8)
        self._look, self._is_ending = look, is_ending
        self._look_s, self._keep_alive_s = look_s, keep_alive_s
        self._listeners: set[_Listener] = set()
        self._watch: asyncio.Task[None] | None = None
        self._has_ended = False

    def require_room(self) -> None:
        """Raise HTTPException 503 if too many browsers are connected."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise HTTPException(
                503, f"{MAX_LISTENERS} pages listen to the server already; close some, or reload this page later."
            )

    async def stream(
        self, is_allowed: Callable[[], Awaitable[bool]], seconds: float | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the events for one browser until it disconnects, its login expires, or the server shuts down.

        Args:
            is_allowed: Tells whether the login is still valid; called at each keep-alive.
            seconds: Duration of the stream; None for no limit.
        """
        listener = _Listener()
        self._listeners.add(listener)
        try:
            if self._watch is None or self._watch.done():
                self._watch = asyncio.create_task(self._watch_server())
            yield _encoded("hello", {"server": self.id})
            end = float("inf") if seconds is None else time.monotonic() + seconds
            next_s = time.monotonic() + self._keep_alive_s
            while (now := time.monotonic()) < end and not self._has_ended:
                try:
                    async with asyncio.timeout(max(0.0, min(next_s, end) - now)):
                        await listener.woken.wait()
                except TimeoutError:
                    if time.monotonic() < next_s:
                        continue
                    if not await is_allowed():
                        return
                    yield b": still here\n\n"
                    next_s = time.monotonic() + self._keep_alive_s
                for kind, content in listener.take().items():
                    yield _encoded(kind, content)
        finally:
            self._listeners.discard(listener)

    async def _watch_server(self) -> None:
        """Poll for changes while browsers are connected; close all streams when the server shuts down."""
        looking: asyncio.Task[ChangesByKind] | None = asyncio.create_task(self._call_look())
        next_s = 0.0
        while self._listeners and not self._is_ending():
            await asyncio.sleep(END_POLL_S)
            if looking is not None and looking.done():
                self._queue(looking.result())
                looking, next_s = None, time.monotonic() + self._look_s
            if looking is None and time.monotonic() >= next_s:
                looking = asyncio.create_task(self._call_look())
        self._has_ended = self._is_ending()
        if looking is not None:
            looking.cancel()
        self._queue({})

    async def _call_look(self) -> ChangesByKind:
        try:
            return await run_in_threadpool(self._look)
        except Exception:  # the streams go on whatever `look` raises
            logger.exception("The check for changes failed; the next one follows.")
            return {}

    def _queue(self, changes: ChangesByKind) -> None:
        if changes or self._has_ended:
            for listener in self._listeners:
                listener.put(changes)


def _encoded(kind: str, content: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n".encode()
