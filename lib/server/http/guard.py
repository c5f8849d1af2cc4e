"""Authenticate the user of each request, check their role, and record changes in the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.datastructures import URL

from lib.server.audit import AuditLog
from lib.server.login.login import Login
from lib.server.login.user import ANYBODY, Role, User, require_role
from lib.server.process.network import is_loopback

Handler = Callable[[Request], Awaitable[Response]]
# Parameters of the path or query that are recorded in the audit log.
_RECORDED = ("image", "id", "tag", "model")


class GuardedRoute(Protocol):
    """Properties of a route that the guard needs (`lib.server.routes.Route`)."""

    @property
    def role(self) -> Role | None: ...

    @property
    def records(self) -> str | None: ...

    @property
    def is_page(self) -> bool: ...


@dataclass(frozen=True)
class Guard:
    """Checks and audit records of the routes of a server.

    Args:
        login: None if the server requires no login and everybody has all rights.
        audit: Log of changes; None to record nothing.
    """

    login: Login | None = None
    audit: AuditLog | None = None

    def route_class(self, route: GuardedRoute) -> type[APIRoute]:
        """Return FastAPI's class for a route, with checks that run before its body is read."""
        guard = self

        class Guarded(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Any]:
                handler = super().get_route_handler()

                async def guarded(request: Request) -> Response:
                    return await guard._answer(request, route, handler)

                return guarded

        return Guarded

    async def _answer(self, request: Request, route: GuardedRoute, handler: Handler) -> Response:
        if self.login is not None:
            _require_encryption(request)
        request.state.audit, request.state.details = self.audit, {}
        request.state.user = await self._user(request, route)
        request.state.is_allowed = lambda: self._is_allowed(request, route)
        response = await handler(request)
        if route.records and response.status_code < 300 and request.state.details is not None:
            sent = {**request.query_params, **request.path_params}
            parameters = {name: sent[name] for name in _RECORDED if sent.get(name)}
            await record(request, route.records, **{**parameters, **request.state.details})
        return response

    async def _is_allowed(self, request: Request, route: GuardedRoute) -> bool:
        """Tell whether the login is still valid, for answers that outlast it."""
        try:
            await self._user(request, route)
        except HTTPException:
            return False
        return True

    async def _user(self, request: Request, route: GuardedRoute) -> User | None:
        """Return the user of a request; None if the route is open to everybody.

        Raises:
            HTTPException: 401, or 303 to the login page, nobody is logged in; 403, the user's role is too low.
        """
        if self.login is None:
            return ANYBODY
        if route.role is None:
            return None
        user = await self.login.user_of(request)
        if user is None:
            raise _login_needed(request, route)
        require_role(user, route.role)
        return user


async def record(request: Request, action: str, **details: object) -> None:
    """Record a change and its user in the audit log."""
    audit: AuditLog | None = request.state.audit
    if audit is None:
        return
    user: User | None = request.state.user
    who = details.pop("who", None) or (user.name if user is not None and user.name else "unknown")
    address = request.client.host if request.client else "this machine"
    program = request.headers.get("user-agent", "")[:200]
    await run_in_threadpool(audit.write, action, str(who), {"address": address, "program": program}, details)


def set_details(request: Request, **details: object) -> None:
    """Add details to the audit record of a request."""
    request.state.details = {**(request.state.details or {}), **details}


def record_nothing(request: Request) -> None:
    """Leave a request out of the audit log, as it changes nothing."""
    request.state.details = None


def _require_encryption(request: Request) -> None:
    """Raise HTTPException 403 if passwords would cross the network unencrypted."""
    is_local = request.client is None or is_loopback(request.client.host)
    if request.url.scheme != "https" and not is_local:
        raise HTTPException(403, "This server takes logins over HTTPS only; use its https:// address.")


def _login_needed(request: Request, route: GuardedRoute) -> HTTPException:
    if route.is_page and "text/html" in request.headers.get("accept", ""):
        here = URL(scope=request.scope)
        target = quote(here.path + (f"?{here.query}" if here.query else ""), safe="")
        root = str(request.scope.get("root_path", ""))
        return HTTPException(303, "Log in first.", {"Location": f"{root}/login?next={target}"})
    return HTTPException(
        401,
        "Nobody is logged in, or the login has expired; log in at /login, or send a valid token as "
        "'Authorization: Bearer TOKEN'.",
        {"WWW-Authenticate": "Bearer"},
    )
