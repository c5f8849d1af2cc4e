"""Log browsers and programs in and out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

from fastapi import Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lib.server.endpoints.who import CurrentUser
from lib.server.http.guard import record
from lib.server.login.code_flow import LIFETIME_S, CodeFlow, FlowError
from lib.server.login.directory import Granted
from lib.server.login.login import Login

SCRIPT = Path(__file__).parents[1] / "login" / "viewer.js"
_WRONG = "The name or the password is wrong; try again, or ask who runs the server."
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


@dataclass(frozen=True)
class LoginPages:
    """Endpoints of a server with a login.

    Args:
        flow: login of browsers at a realm; None if this server checks names and passwords itself.
    """

    login: Login
    flow: CodeFlow | None = None

    async def page(self, request: Request, next: str = "/") -> Response:
        """Show the login form, or redirect to the login of the realm."""
        target = local_path(next)
        if await self.login.user_of(request) is not None:
            return self._redirect(request, target)
        if self.flow is None:
            return _page("Log in", form=True, target=target)
        address, cookie = await self.flow.begin(f"{request.base_url}login/callback", target)
        answer = RedirectResponse(address, 303)
        is_encrypted = request.url.scheme == "https"
        answer.set_cookie(self._begun, cookie, max_age=LIFETIME_S, secure=is_encrypted, httponly=True, samesite="lax")
        return answer

    async def log_in(
        self,
        request: Request,
        name: Annotated[str, Form()],
        password: Annotated[str, Form()],
        next: Annotated[str, Form()] = "/",
    ) -> Response:
        """Log in with the name and password of the login form."""
        if self.flow is not None:
            raise HTTPException(404, "Users of this server log in at their realm; open /login.")
        target = local_path(next)
        try:
            granted = await self.login.check_password(request, name, password)
        except HTTPException as refusal:
            if refusal.status_code != 429:
                raise
            return _page("Log in", 429, str(refusal.detail), refusal.headers, form=True, target=target, name=name)
        if granted is None:
            await record(request, "login refused")
            return _page("Log in", 401, _WRONG, form=True, target=target, name=name)
        return await self._logged_in(request, granted, target)

    async def callback(self, request: Request) -> Response:
        """Finish a login at the realm, which redirects the browser here."""
        if self.flow is None:
            raise HTTPException(404, "This server has no realm; open /login.")
        try:
            granted, target = await self.flow.finish(request.query_params, request.cookies.get(self._begun, ""))
        except FlowError as error:
            await record(request, "login refused")
            return _page("Not logged in", 401, str(error), again="../login")
        except HTTPException as error:
            return _page("Not logged in", error.status_code, str(error.detail), again="../login")
        answer = await self._logged_in(request, granted, target)
        answer.delete_cookie(self._begun, httponly=True, samesite="lax")
        return answer

    async def done(self, request: Request) -> Response:
        """Show who is logged in, after a login in a separate tab."""
        user = await self.login.user_of(request)
        if user is None:
            return _page("Not logged in", 401, "Nobody is logged in.", again="../login?next=%2Flogin%2Fdone")
        return _page("Logged in", 200, f"You are logged in as {user.name}. Close this tab and go back to your study.")

    async def log_out(self, request: Request) -> Response:
        """End the session of this browser or token, and offer the logout of the realm."""
        user = await self.login.user_of(request)
        await self.login.end_session(request)
        if user is not None:
            await record(request, "logout", who=user.name)
        answer = _page("Logged out", 200, "You are logged out.", again="login", onward=await self._end_at_realm())
        self.login.delete_cookie(request, answer)
        return answer

    async def about(self) -> dict[str, Any]:
        """Return that the server requires a login, and the address and client id of its realm."""
        users = None if self.flow is None else self.flow.users
        return {
            "enabled": True,
            "client_id": None if users is None else users.client,
            "realm": None if users is None else users.realm.address,
        }

    async def token(
        self, request: Request, username: Annotated[str, Form()], password: Annotated[str, Form()]
    ) -> dict[str, str]:
        """Return a token for a name and a password, as Slicer requests it."""
        granted = await self.login.check_password(request, username, password)
        if granted is None:
            await record(request, "login refused")
            raise HTTPException(401, _WRONG, {"WWW-Authenticate": "Bearer"})
        token = granted.token or await self.login.start_session(granted)
        await record(request, "login", who=granted.user.name)
        return {"access_token": token, "token_type": "Bearer"}

    async def valid(self, user: CurrentUser) -> dict[str, Any]:
        """Return the name and role of the logged-in user; 401 without a valid login."""
        return {"username": user.name, "role": str(user.role)}

    async def script(self) -> Response:
        """Return the script that shows the user's name in OHIF, and a note once the login has expired."""
        return Response(SCRIPT.read_bytes(), media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    @property
    def _begun(self) -> str:
        """Name of the cookie of a login that has begun."""
        return f"{self.login.cookie}-begun"

    async def _logged_in(self, request: Request, granted: Granted, target: str) -> Response:
        await self.login.end_session(request)
        session_id = await self.login.start_session(granted)
        await record(request, "login", who=granted.user.name)
        answer = self._redirect(request, target)
        self.login.set_cookie(request, answer, session_id)
        return answer

    def _redirect(self, request: Request, target: str) -> Response:
        root = str(request.scope.get("root_path", ""))
        return RedirectResponse(target if not root or target.startswith(f"{root}/") else f"{root}{target}", 303)

    async def _end_at_realm(self) -> str | None:
        if self.flow is None:
            return None
        try:
            address = await self.flow.users.realm.endpoint("end_session_endpoint")
        except HTTPException:  # the realm is unreachable; the local session has ended anyway
            return None
        return None if address is None else f"{address}?{urlencode({'client_id': self.flow.users.client})}"


def local_path(target: str) -> str:
    """Return a path of this server; `/` for a target that a browser could resolve to another server."""
    parts = urlsplit(target.replace("\\", "/"))
    is_local = target.isprintable() and target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if is_local and not parts.scheme and not parts.netloc else "/"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1] / "login"), autoescape=True, undefined=StrictUndefined
)


def _page(title: str, status: int = 200, sentence: str = "", headers: Any = None, /, **parts: object) -> HTMLResponse:
    known = {"form": False, "target": "/", "name": "", "again": None, "onward": None, **parts}
    content = _TEMPLATES.get_template("login_page.html").render(
        title=title, sentence=sentence, is_error=status >= 400, **known
    )
    return HTMLResponse(content, status, {**(headers or {}), "Content-Security-Policy": _POLICY})
