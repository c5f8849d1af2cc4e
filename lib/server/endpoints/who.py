"""Give endpoints the user who sends a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request

from lib.server.http.guard import set_details
from lib.server.login.user import User


def current_user(request: Request) -> User:
    """As the guard in front of the routes has found (`lib.server.http.guard`)."""
    user: User = request.state.user
    return user


CurrentUser = Annotated[User, Depends(current_user)]


def name_of(request: Request, params: Mapping[str, Any]) -> str:
    """The name of the login; without one what the client says (Slicer sends a `client_id`, OHIF nothing).

    The audit log names the same.
    """
    user = current_user(request)
    name = user.name if user.name is not None else str(params.get("client_id") or "unknown")[:200]
    set_details(request, who=name)
    return name
