"""Define what a directory of users does; a file and a realm of OpenID Connect are two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lib.server.login.user import User


@dataclass(frozen=True)
class Granted:
    """A login that was right.

    Attributes:
        proof: as in `LoginSession`.
        token: that stands for the user; None where a session is to be started for that.
    """

    user: User
    proof: str = ""
    token: str | None = None


class Directory(Protocol):
    """Raises: HTTPException: 403, a user without a role; 503, the directory cannot be asked now."""

    async def of_token(self, token: str) -> User | None:
        """The user of a token of the directory; None where it is not valid."""

    async def of_password(self, name: str, password: str) -> Granted | None:
        """None: there is no such user, or the password is wrong."""

    def of_session(self, user: User, proof: str) -> User | None:
        """The user of a session as they are now; None where it has ended."""
