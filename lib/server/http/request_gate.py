"""Check every request before it is routed, and set the security headers of every answer."""

from __future__ import annotations

import logging
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.server.http.refusals import RefusedError, shown
from lib.server.http.request_body import Body, BodyLimits
from lib.server.http.request_checks import HostCheck, OriginCheck, check_syntax

logger = logging.getLogger(__name__)

NOT_MODIFIED = 304

# Headers of answers that do not set them themselves, as pages do.
DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # With no-referrer, browsers would send "Origin: null" with some requests of the server's own pages.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "sandbox",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")


class Gate:
    """ASGI middleware that refuses bad requests with a status and a sentence, and passes the others on.

    It refuses a Host that is not a name of this server (421; 400 unless there is exactly one), pages of other origins
    (403), invalid text (400), and bodies that are too large (413) or too slow (408). An uncaught exception becomes a
    500 without its text. WebSockets are closed.

    Args:
        app: Application behind the gate.
        hosts: Names of the server besides localhost and the machine's name (setting `allowed_hosts`).
        origins: Origins whose pages may use the server, such as https://viewer.example (setting `allowed_origins`);
            they get CORS headers, without credentials. Without origins there is no CORS.
        limits: Limits of request bodies.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        limits: BodyLimits = BodyLimits(),  # noqa: B008
    ) -> None:
        origins = [origin.lower().rstrip("/") for origin in origins]
        self._app: ASGIApp = app
        if origins:
            self._app = CORSMiddleware(app, allow_origins=origins, allow_methods=METHODS, allow_headers=["*"])
        self._checks = (check_syntax, HostCheck(hosts), OriginCheck(origins))
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, _Answer(scope, send))
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        body = Body(scope, receive, self._limits, answer.refuse)
        try:
            for check in self._checks:
                check(scope)
            body.check_length()
            await self._app(scope, body.receive, answer.send)
        except RefusedError as refusal:
            await answer.refuse(refusal)
        except ClientDisconnect:
            logger.info("%s %s: the client disconnected", scope["method"], shown(scope["path"]))
        except Exception:  # every request has to be answered
            logger.exception("%s %s failed", scope["method"], shown(scope["path"]))
            await answer.refuse(RefusedError(500, "The server failed to answer this request; its log says why."))


class _Answer:
    """Answer to one request, with the default headers."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._is_head, self._send = scope["method"] == "HEAD", send
        self._is_started = self._is_refused = False

    async def send(self, message: Message) -> None:
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            self._is_started = True
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            # A browser would replace the headers of its cached page by those of a 304.
            if message["status"] != NOT_MODIFIED:
                for name, value in DEFAULT_HEADERS.items():
                    headers.setdefault(name, value)
            message = {**message, "headers": headers.raw}
        await self._send(message)

    async def refuse(self, refusal: RefusedError) -> None:
        """Send a refusal; if an answer has already started, cut it off, so that the server closes the connection."""
        if not self._is_started:
            headers = MutableHeaders({"Content-Type": "application/json", **refusal.headers})
            headers["Content-Length"] = str(len(refusal.body))
            await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers.raw})
            await self.send({"type": "http.response.body", "body": b"" if self._is_head else refusal.body})
        self._is_refused = True
