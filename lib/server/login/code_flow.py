"""Log in a browser by OpenID Connect: authorisation code flow with PKCE."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from fastapi import HTTPException
from itsdangerous import BadSignature, URLSafeTimedSerializer

from lib.server.login.directory import Granted
from lib.server.login.realm_users import RealmUsers, user_of

LIFETIME_S = 600


class FlowError(ValueError):
    """Login at the realm that cannot be finished; its text is for the user."""


@dataclass(frozen=True)
class CodeFlow:
    """Authorisation code flow of browsers.

    A signed cookie keeps the state of a login, so that the code of one browser is useless in another. Logins that are
    in progress when the server restarts have to be started again.
    """

    users: RealmUsers
    _signer: URLSafeTimedSerializer = field(
        default_factory=lambda: URLSafeTimedSerializer(secrets.token_bytes(32), "login")
    )

    async def begin(self, callback: str, target: str) -> tuple[str, str]:
        """Return the address of the realm's login, and the cookie that `finish` requires.

        Args:
            callback: Address of this server to which the realm redirects the browser.
            target: Path to show after the login.

        Raises:
            HTTPException: 503, the realm is unreachable.
        """
        begun = {name: secrets.token_urlsafe(32) for name in ("state", "nonce", "verifier")}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(begun["verifier"].encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.users.client,
            "redirect_uri": callback,
            "scope": "openid profile email",
            "state": begun["state"],
            "nonce": begun["nonce"],
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = await self.users.realm.endpoint("authorization_endpoint")
        if address is None:
            raise HTTPException(503, "The realm offers no login in a browser; ask who runs it.")
        separator = "&" if "?" in address else "?"
        cookie = self._signer.dumps({**begun, "callback": callback, "target": target})
        return f"{address}{separator}{urlencode(query)}", str(cookie)

    async def finish(self, query: Mapping[str, str], cookie: str) -> tuple[Granted, str]:
        """Exchange the code in the query of the callback for the user, and return the path to show.

        Raises:
            FlowError: The login was refused, took too long, or was started in another browser.
            HTTPException: 403, the user has no role; 503, the realm is unreachable.
        """
        try:
            begun = self._signer.loads(cookie, max_age=LIFETIME_S)
        except BadSignature as error:
            raise FlowError("The login took too long, or was begun in another browser; log in again.") from error
        if not secrets.compare_digest(query.get("state", "").encode(), begun["state"].encode()):
            raise FlowError("The answer of the realm belongs to another login; log in again.")
        if "code" not in query:
            raise FlowError("The realm has refused the login; log in again, or ask who runs the realm.")
        tokens = await self.users.tokens(
            grant_type="authorization_code",
            code=query["code"],
            redirect_uri=begun["callback"],
            code_verifier=begun["verifier"],
        )
        identity = await self.users.claims(str((tokens or {}).get("id_token", "")), begun["nonce"])
        if tokens is None or identity is None:
            raise FlowError("The realm does not confirm the login; log in again.")
        # Keycloak gives the roles in the access token.
        access = await self.users.claims(str(tokens.get("access_token", "")))
        return Granted(user_of(identity, access or {})), begun["target"]
