"""Store the sessions of logged-in users on disk."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from lib.annotations.json_file import JsonFile
from lib.server.login.user import Role, User


@dataclass(frozen=True)
class LoginSession:
    """Session of a logged-in user.

    Attributes:
        proof: Digest of the password hash, so that a new password ends the session; empty for a login at a realm.
        until: Expiry, in seconds since 1970.
    """

    user: User
    proof: str
    until: float


class LoginSessions:
    """Sessions of a project. The file holds only hashes of their ids, so that reading it gives no access.

    Args:
        path: File of the sessions.
        lifetime_s: Lifetime of a session in seconds, whether it is used or not.
    """

    def __init__(self, path: Path, lifetime_s: float) -> None:
        self._file, self.lifetime_s = JsonFile(path), lifetime_s

    def start(self, user: User, proof: str = "") -> str:
        """Start a session and return its secret id; remove expired sessions.

        Raises:
            OSError: The session cannot be stored.
        """
        for key, content in self._file.items().items():
            if _session(content) is None:
                self._file.change(key, lambda _: None)
        session_id = secrets.token_urlsafe(32)
        content = {"name": user.name, "role": int(user.role), "proof": proof, "until": time.time() + self.lifetime_s}
        self._file.change(_key(session_id), lambda _: content)
        return session_id

    def find(self, session_id: str) -> LoginSession | None:
        """Return a session; None if it does not exist or has expired."""
        return _session(self._file.get(_key(session_id)))

    def end(self, session_id: str) -> None:
        """End a session; raise OSError if the end cannot be stored."""
        self._file.change(_key(session_id), lambda _: None)


def _key(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()


def _session(content: dict) -> LoginSession | None:
    try:
        session = LoginSession(
            User(str(content["name"]), Role(content["role"])), str(content["proof"]), float(content["until"])
        )
    except (KeyError, TypeError, ValueError):
        return None
    return session if time.time() < session.until else None
