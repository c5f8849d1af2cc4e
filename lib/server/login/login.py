"""Find the user of a request by its token or by the cookie of its session."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from lib.server.http.disk_full import writing
from lib.server.login.attempts import Attempts
from lib.server.login.directory import Directory, Granted
from lib.server.login.login_sessions import LoginSessions
from lib.server.login.user import User


@dataclass(frozen=True)
class Login:
    """Login of a server.

    Args:
        cookie: Name of the session cookie; it differs between projects, as servers on one machine share cookies.
    """

    directory: Directory
    sessions: LoginSessions
    cookie: str
    attempts: Attempts = field(default_factory=Attempts)

    async def user_of(self, request: Request) -> User | None:
        """Return the user who sends a request; None if nobody is logged in.

        Raises:
            HTTPException: As `Directory`.
        """
        if "authorization" in request.headers:
            token = bearer_token(request)
            return None if token is None else self._of_session(token) or await self.directory.of_token(token)
        session_id = request.cookies.get(self.cookie)
        return None if session_id is None else self._of_session(session_id)

    async def check_password(self, request: Request, name: str, password: str) -> Granted | None:
        """Check a password; return None if the name or the password is wrong.

        Raises:
            HTTPException: 429, too many logins have failed; 403 or 503, as `Directory`.
        """
        address = request.client.host if request.client else ""
        self.attempts.begin(name, address)
        try:
            granted = await self.directory.of_password(name, password)
        except HTTPException:
            self.attempts.withdraw(name, address)
            raise
        if granted is not None:
            self.attempts.succeeded(name, address)
        return granted

    async def start_session(self, granted: Granted) -> str:
        """Start a session and return its id.

        Raises:
            HTTPException: 507, the session cannot be stored.
        """
        with writing("The session"):
            return await run_in_threadpool(self.sessions.start, granted.user, granted.proof)

    async def end_session(self, request: Request) -> None:
        """End the session of a request, if it has one.

        Raises:
            HTTPException: 507, the end cannot be stored.
        """
        with writing("The end of the session"):
            for session_id in (bearer_token(request), request.cookies.get(self.cookie)):
                if session_id is not None:
                    await run_in_threadpool(self.sessions.end, session_id)

    def set_cookie(self, request: Request, response: Response, session_id: str) -> None:
        """Set the session cookie: hidden from scripts, and not sent with changing requests of other sites."""
        response.set_cookie(
            self.cookie,
            session_id,
            max_age=int(self.sessions.lifetime_s),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )

    def delete_cookie(self, request: Request, response: Response) -> None:
        response.delete_cookie(self.cookie, secure=request.url.scheme == "https", httponly=True, samesite="lax")

    def _of_session(self, session_id: str) -> User | None:
        session = self.sessions.find(session_id)
        return None if session is None else self.directory.of_session(session.user, session.proof)


def bearer_token(request: Request) -> str | None:
    """Return the token of the header `Authorization: Bearer`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
