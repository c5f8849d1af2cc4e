"""Who sends a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import User, get_current_user

CurrentUser = Annotated[User, Depends(get_current_user)]


def name_of(user: User, params: Mapping[str, Any]) -> str:
    """The name of the login; without one what the client says (Slicer sends a `client_id`, OHIF nothing)."""
    return user.username if settings.MONAI_LABEL_AUTH_ENABLE else str(params.get("client_id") or "unknown")[:200]
