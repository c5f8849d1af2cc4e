"""Check logins at a realm of OpenID Connect: verify tokens and map claims to users."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from fastapi import HTTPException
from monailabel.config import settings

from lib.server.login.directory import Granted
from lib.server.login.realm import Realm
from lib.server.login.user import Role, User

logger = logging.getLogger(__name__)

ALGORITHM = "RS256"
CLOCK_SKEW_S = 10


@dataclass(frozen=True)
class RealmUsers:
    """Directory of the users of a realm.

    Args:
        client: Client id of this server at the realm.
        secret: Secret of this client; empty for a public client.
    """

    realm: Realm
    client: str
    secret: str = ""

    async def of_token(self, token: str) -> User | None:
        claims = await self.claims(token)
        return None if claims is None else user_of(claims)

    async def of_password(self, name: str, password: str) -> Granted | None:
        """Log in as Slicer's client does; the realm has to allow it ("direct access grants")."""
        tokens = await self.tokens(grant_type="password", username=name, password=password, scope="openid")
        token = str((tokens or {}).get("access_token", ""))
        user = await self.of_token(token)
        return None if user is None else Granted(user, token=token)

    def of_session(self, user: User, proof: str) -> User | None:
        """Return the user as of the login; None for a session of a users file, which has a proof."""
        return user if proof == "" else None

    async def tokens(self, **form: str) -> dict[str, Any] | None:
        """Request tokens as `Realm.tokens`, with the id and secret of this client."""
        secret = {"client_secret": self.secret} if self.secret else {}
        return await self.realm.tokens({"client_id": self.client, **secret, **form})

    async def claims(self, token: str, nonce: str | None = None) -> Mapping[str, Any] | None:
        """Return the claims of a token; None unless the realm signed it for this server and it has not expired.

        Args:
            nonce: Nonce that the token must have, if given.

        Raises:
            HTTPException: 503, the realm is unreachable.
        """
        try:
            key = await self.realm.key(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise jwt.InvalidKeyError("the realm has no such key")
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[ALGORITHM],
                issuer=await self.realm.endpoint("issuer"),
                leeway=CLOCK_SKEW_S,
                options={"require": ["exp", "iss"], "verify_aud": False},
            )
            self._require_for_this_server(claims)
            if nonce is not None and claims.get("nonce") != nonce:
                raise jwt.InvalidTokenError("it answers another login")
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            logger.warning("A token is refused: %s", error)
            return None
        return claims

    def _require_for_this_server(self, claims: Mapping[str, Any]) -> None:
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self.client not in audiences and claims.get("azp") != self.client:
            raise jwt.InvalidAudienceError("it is for another client of the realm")


def user_of(*tokens: Mapping[str, Any]) -> User:
    """Return the user of the claims of one or several tokens; the first token with a role gives the role.

    Raises:
        HTTPException: 403, the claims have no name or no role.
    """
    name = tokens[0].get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME)
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 200:
        raise HTTPException(
            403, f"The login has no name under {settings.MONAI_LABEL_AUTH_TOKEN_USERNAME!r}; ask who runs the realm."
        )
    role = next((role for claims in tokens if (role := Role.of_realm(_roles(claims))) is not None), None)
    if role is None:
        raise HTTPException(403, f"{name!r} has none of the roles of this server; ask who runs the realm for one.")
    return User(name, role)


def _roles(claims: Any) -> list[object]:
    for part in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        claims = claims.get(part) if isinstance(claims, Mapping) else None
    return claims if isinstance(claims, list) else []
