"""Keep uploaded images for a limited time, without adding them to the studies."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

LIFETIME_S = 3600
MAX_SESSIONS = 64


@dataclass
class Session:
    """Uploaded image.

    Attributes:
        image: File of the image.
        expiry_s: Lifetime after the last use, in seconds.
        created, used: Time in seconds since 1970.
    """

    id: str
    image: Path
    expiry_s: int
    created: float
    used: float

    def info(self) -> dict[str, str | int]:
        return {
            "name": self.id,
            "image": self.image.name,
            "create_ts": int(self.created),
            "last_access_ts": int(self.used),
            "expiry": self.expiry_s,
        }


class Sessions:
    """Sessions of a server. They end with it; beyond the largest number, the least recently used session ends."""

    def __init__(self, lifetime_s: int = LIFETIME_S, max_sessions: int = MAX_SESSIONS) -> None:
        self._lifetime_s, self._max_sessions = lifetime_s, max_sessions
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def add(self, image: Path, expiry_s: int = 0) -> Session:
        """Start a session for an uploaded file, which the session deletes at its end.

        Args:
            image: File of the image.
            expiry_s: Lifetime after the last use, in seconds; 0 for the longest.
        """
        with self._lock:
            self._remove_expired()
            while len(self._sessions) >= self._max_sessions:
                self._remove(min(self._sessions.values(), key=lambda session: session.used).id)
            expiry_s = min(expiry_s, self._lifetime_s) if expiry_s > 0 else self._lifetime_s
            session = Session(secrets.token_hex(16), image, expiry_s, time.time(), time.time())
            self._sessions[session.id] = session
            return session

    def get(self, session_id: str) -> Session | None:
        """Return a session and count this as its last use; None if it does not exist or has ended."""
        with self._lock:
            self._remove_expired()
            session = self._sessions.get(session_id)
            if session is not None:
                session.used = time.time()
            return session

    def remove(self, session_id: str) -> None:
        with self._lock:
            self._remove(session_id)

    def _remove_expired(self) -> None:
        now = time.time()
        for session in list(self._sessions.values()):
            if abs(now - session.used) > session.expiry_s:
                self._remove(session.id)

    def _remove(self, session_id: str) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            session.image.unlink(missing_ok=True)
