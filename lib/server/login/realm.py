"""Ask a realm of OpenID Connect for its endpoints, signing keys and tokens."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
from fastapi import HTTPException

from lib.server.process.certificates import trusted_certificates
from lib.server.process.network import is_loopback

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RealmTimes:
    """How often a realm is asked, in seconds.

    Attributes:
        keys: after which its keys are read anew.
        unknown_key: at least between two readings because of a key that is not known.
        away: for which a realm that was away is not asked again.
        answer: that it may take for an answer.
    """

    keys: float = 600.0
    unknown_key: float = 10.0
    away: float = 3.0
    answer: float = 10.0


@dataclass(frozen=True)
class _Known:
    """What a realm has said, and when, in seconds of the monotonic clock."""

    configuration: Mapping[str, Any]
    keys: Mapping[str | None, jwt.PyJWK]
    read: float


class Realm:
    """Asks a realm, and keeps what it answers for a while.

    Args:
        address: such as https://login.hospital.example/realms/monailabel, which is the issuer of its tokens too.
    """

    def __init__(self, address: str, times: RealmTimes = RealmTimes()) -> None:  # noqa: B008
        self.address, self._times = address, times
        self._known: _Known | None = None
        self._away_since = float("-inf")
        self._lock = asyncio.Lock()
        self._client = httpx.AsyncClient(
            timeout=times.answer,
            follow_redirects=False,
            trust_env=not is_loopback(httpx.URL(address).host),
            verify=trusted_certificates(),
        )

    async def endpoint(self, name: str) -> str | None:
        """An address in the realm's configuration, such as that of the `token_endpoint`; None where it has none.

        Raises:
            HTTPException: 503, the realm is away.
        """
        known = await self._current(self._times.keys)
        value = known.configuration.get(name)
        return value if isinstance(value, str) else None

    async def key(self, key_id: str | None) -> jwt.PyJWK | None:
        """A key that the realm signs with; None where it has no such key.

        Raises:
            HTTPException: 503, the realm is away.
        """
        known = await self._current(self._times.keys)
        if key_id not in known.keys:
            known = await self._current(self._times.unknown_key)
        return known.keys.get(key_id)

    async def tokens(self, form: Mapping[str, str]) -> dict[str, Any] | None:
        """What the realm gives for a code or a password; None where it refuses them.

        Raises:
            HTTPException: 503, the realm is away.
        """
        address = await self.endpoint("token_endpoint")
        if address is None:
            raise self._is_away("its configuration has no token_endpoint")
        answer = await self._ask(lambda: self._client.post(address, data=dict(form)))
        if answer.status_code in (400, 401, 403):
            return None
        return self._object(answer)

    async def _current(self, most_age_s: float) -> _Known:
        """What is known of the realm, and is not older than that."""
        async with self._lock:
            now = time.monotonic()
            if self._known is None or now - self._known.read > most_age_s:
                self._known = await self._read(now)
            return self._known

    async def _read(self, now: float) -> _Known:
        if now - self._away_since < self._times.away:
            raise self._is_away("it was so just now")
        address = f"{self.address.rstrip('/')}/.well-known/openid-configuration"
        configuration = self._object(await self._ask(lambda: self._client.get(address)))
        if str(configuration.get("issuer")).rstrip("/") != self.address.rstrip("/"):
            raise self._is_away(f"it calls itself {str(configuration.get('issuer'))[:200]!r}, not {self.address!r}")
        keys = self._object(await self._ask(lambda: self._client.get(str(configuration.get("jwks_uri")))))
        return _Known(configuration, _signing_keys(keys), now)

    async def _ask(self, ask: Callable[[], Any]) -> httpx.Response:
        try:
            answer: httpx.Response = await ask()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._away_since = time.monotonic()
            raise self._is_away(type(error).__name__) from error
        return answer

    def _object(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            content = answer.json() if answer.is_success else None
        except ValueError:
            content = None
        if not isinstance(content, dict):
            self._away_since = time.monotonic()
            raise self._is_away(f"it answers with {answer.status_code} and no JSON object")
        return content

    def _is_away(self, reason: str) -> HTTPException:
        logger.error("The realm %s cannot be used: %s.", self.address, reason)
        return HTTPException(503, "The server that checks logins does not answer now; try again later.")


def _signing_keys(content: Mapping[str, Any]) -> dict[str | None, jwt.PyJWK]:
    """The RSA keys by their ids; those that cannot be read, or are for something else, are left out."""
    keys: dict[str | None, jwt.PyJWK] = {}
    listed = content.get("keys")
    for key in listed if isinstance(listed, list) else []:
        if isinstance(key, dict) and key.get("kty") == "RSA" and key.get("use", "sig") == "sig":
            try:
                keys[key.get("kid")] = jwt.PyJWK(key, "RS256")
            except jwt.PyJWTError as error:
                logger.warning("A key of the realm cannot be read: %s", error)
    return keys
