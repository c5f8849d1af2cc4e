"""Limit the size of a request's body, and the time to receive it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import Message, Receive, Scope

from lib.server.http.refusals import RefusedError
from lib.server.http.request_checks import header_values

_TAKES_FILES = re.compile(r"/(?:infer|datastore|session|proxy/dicom)(?:/|$)")
_DISCONNECTED: Message = {"type": "http.disconnect"}


@dataclass(frozen=True)
class BodyLimits:
    """Limits of a request's body.

    Args:
        text_bytes: Largest size of JSON and text forms.
        upload_bytes: Largest size of multipart bodies sent to paths that accept files.
        stall_s: Longest pause between two pieces of a body.
        slow_s: Waiting time after which the average rate must be at least `bytes_per_s`.
        bytes_per_s: See `slow_s`.
    """

    text_bytes: int = 1_000_000
    upload_bytes: int = 4_000_000_000
    stall_s: float = 20.0
    slow_s: float = 60.0
    bytes_per_s: float = 1000.0

    def max_bytes(self, scope: Scope) -> int:
        """Return the largest size of this request's body."""
        types = header_values(scope, b"content-type")
        is_multipart = len(types) == 1 and types[0].lower().startswith("multipart/")
        return self.upload_bytes if is_multipart and _TAKES_FILES.match(scope["path"]) else self.text_bytes


class Body:
    """Body of one request, as an ASGI application receives it.

    If the client sends too much or too slowly, `refuse` sends the answer, and the application sees a disconnected
    client.
    """

    def __init__(
        self, scope: Scope, receive: Receive, limits: BodyLimits, refuse: Callable[[RefusedError], Awaitable[None]]
    ) -> None:
        self._scope, self._receive, self._limits, self._refuse = scope, receive, limits, refuse
        self._max_bytes = limits.max_bytes(scope)
        self._received_bytes, self._waited_s, self._is_whole, self._is_refused = 0, 0.0, False, False

    def check_length(self) -> None:
        """Raise RefusedError 413 if the announced length is above the limit."""
        lengths = header_values(self._scope, b"content-length")
        if any(length.isdecimal() and int(length[:20]) > self._max_bytes for length in lengths):
            # A client that waits for "100 Continue" sends no body; its next request would be read as the body.
            expects = bool(header_values(self._scope, b"expect"))
            raise self._too_large({"Connection": "close"} if expects else {})

    async def receive(self) -> Message:
        """Receive the next message, as ASGI's `receive`; after the body, wait for the disconnect without a limit."""
        if self._is_refused:
            return _DISCONNECTED
        if self._is_whole:
            return await self._receive()
        try:
            message = await self._timed()
            self._count(message)
        except RefusedError as refusal:
            self._is_refused = True
            await self._refuse(refusal)
            return _DISCONNECTED
        return message

    async def _timed(self) -> Message:
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            async with asyncio.timeout(self._limits.stall_s):
                return await self._receive()
        except TimeoutError as error:
            raise self._too_slow(f"nothing came for {self._limits.stall_s:g} s") from error
        finally:
            self._waited_s += loop.time() - start

    def _count(self, message: Message) -> None:
        if message["type"] != "http.request":
            return
        self._received_bytes += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._received_bytes > self._max_bytes:
            raise self._too_large({})
        is_slow = self._received_bytes < self._limits.bytes_per_s * self._waited_s
        if not self._is_whole and self._waited_s > self._limits.slow_s and is_slow:
            raise self._too_slow(f"{self._received_bytes} bytes came in {self._waited_s:.0f} s")

    def _too_large(self, headers: dict[str, str]) -> RefusedError:
        return RefusedError(413, f"The request is too large; expected no more than {self._max_bytes:,} bytes.", headers)

    def _too_slow(self, found: str) -> RefusedError:
        return RefusedError(408, f"The request is not whole: {found}; send it again.", {"Connection": "close"})
