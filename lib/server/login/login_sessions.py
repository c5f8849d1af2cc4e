"""Keep the sessions of users on disk until they expire or log out."""

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
    """A user who has logged in.

    Attributes:
        proof: of the password, so that a new one ends the session; empty where a realm checked it.
        until: when it expires, in seconds since 1970.
    """

    user: User
    proof: str
    until: float


class LoginSessions:
    """The sessions of a project, on disk. Only hashes of their ids are kept, so that the file lets nobody in.

    Args:
        path: of the file.
        lifetime_s: after which a session expires, used or not.
    """

    def __init__(self, path: Path, lifetime_s: float) -> None:
        self._file, self.lifetime_s = JsonFile(path), lifetime_s

    def start(self, user: User, proof: str = "") -> str:
        """The id of a new session, which is as good as a password.

        Raises:
            OSError: it cannot be kept.
        """
        for key, content in self._file.items().items():
            if _session(content) is None:
                self._file.change(key, lambda _: None)
        session_id = secrets.token_urlsafe(32)
        content = {"name": user.name, "role": int(user.role), "proof": proof, "until": time.time() + self.lifetime_s}
        self._file.change(_key(session_id), lambda _: content)
        return session_id

    def find(self, session_id: str) -> LoginSession | None:
        """A session that has not expired."""
        return _session(self._file.get(_key(session_id)))

    def end(self, session_id: str) -> None:
        """Raises: OSError: the end cannot be kept."""
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
