"""Provide endpoints with the user of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request

from lib.server.http.guard import set_details
from lib.server.login.user import User


def current_user(request: Request) -> User:
    """Return the user that the guard has authenticated (`lib.server.http.guard`)."""
    return request.state.user


CurrentUser = Annotated[User, Depends(current_user)]


def name_of(request: Request, params: Mapping[str, Any]) -> str:
    """Return the name of the login; without a login the `client_id` (sent by Slicer, not by OHIF) or "unknown".

    The name is also recorded in the audit log.
    """
    user = current_user(request)
    name = user.name if user.name is not None else str(params.get("client_id") or "unknown")[:200]
    set_details(request, who=name)
    return name
