"""Define users and their roles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from fastapi import HTTPException
from monailabel.config import settings


class Role(IntEnum):
    """Rights of a user; each role includes the rights of the lower ones."""

    USER = 1
    ANNOTATOR = 2
    REVIEWER = 3
    ADMIN = 4

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def of_realm(cls, names: Iterable[object]) -> Role | None:
        """Return the highest of the roles that a realm names (settings MONAI_LABEL_AUTH_ROLE_*); None without any."""
        of_name = {
            settings.MONAI_LABEL_AUTH_ROLE_USER: cls.USER,
            settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR: cls.ANNOTATOR,
            settings.MONAI_LABEL_AUTH_ROLE_REVIEWER: cls.REVIEWER,
            settings.MONAI_LABEL_AUTH_ROLE_ADMIN: cls.ADMIN,
        }
        return max((of_name[name] for name in names if isinstance(name, str) and name in of_name), default=None)


@dataclass(frozen=True)
class User:
    """Sender of a request.

    Attributes:
        name: Name of the login; None on a server without a login.
    """

    name: str | None
    role: Role


# The user of all requests to a server without a login.
ANYBODY = User(None, Role.ADMIN)


def require_role(user: User, role: Role) -> None:
    """Raise HTTPException 403 unless the user has this role or a higher one."""
    if user.role < role:
        raise HTTPException(
            403,
            f"This needs the role {role}, and {user.name!r} has the role {user.role}; ask who runs the server for it.",
        )
