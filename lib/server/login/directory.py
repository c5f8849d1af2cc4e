"""Define the interface of user directories: a users file, or a realm of OpenID Connect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lib.server.login.user import User


@dataclass(frozen=True)
class Granted:
    """Successful login.

    Attributes:
        proof: As in `LoginSession`.
        token: Access token of the user; None if the server has to start a session.
    """

    user: User
    proof: str = ""
    token: str | None = None


class Directory(Protocol):
    """Directory of users.

    Its methods raise HTTPException: 403, the user has no role; 503, the directory is unavailable.
    """

    async def of_token(self, token: str) -> User | None:
        """Return the user of a token of the directory; None if the token is not valid."""

    async def of_password(self, name: str, password: str) -> Granted | None:
        """Check a password; return None if the name or the password is wrong."""

    def of_session(self, user: User, proof: str) -> User | None:
        """Return the user of a session with their current role; None if the session is no longer valid."""
