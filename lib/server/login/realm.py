"""Request the endpoints, signing keys and tokens of a realm of OpenID Connect."""

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
    """Intervals and limits of the requests to a realm, in seconds.

    Attributes:
        keys: Age at which the realm's keys are read again.
        unknown_key: Least age at which an unknown key causes another reading.
        away: Pause after a failed request.
        answer: Time limit of an answer.
    """

    keys: float = 600.0
    unknown_key: float = 10.0
    away: float = 3.0
    answer: float = 10.0


@dataclass(frozen=True)
class _Known:
    """Configuration and keys of a realm, and when they were read (monotonic clock, seconds)."""

    configuration: Mapping[str, Any]
    keys: Mapping[str | None, jwt.PyJWK]
    read: float


class Realm:
    """Client of a realm, with a cache of its configuration and keys.

    Args:
        address: Such as https://login.hospital.example/realms/monailabel; also the issuer of its tokens.
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
        """Return an entry of the realm's configuration, such as the `token_endpoint`; None if it is missing.

        Raises:
            HTTPException: 503, the realm is unreachable.
        """
        known = await self._current(self._times.keys)
        value = known.configuration.get(name)
        return value if isinstance(value, str) else None

    async def key(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return a signing key of the realm; None if it has no such key.

        Raises:
            HTTPException: 503, the realm is unreachable.
        """
        known = await self._current(self._times.keys)
        if key_id not in known.keys:
            known = await self._current(self._times.unknown_key)
        return known.keys.get(key_id)

    async def tokens(self, form: Mapping[str, str]) -> dict[str, Any] | None:
        """Request tokens for a code or a password; return None if the realm refuses them.

        Raises:
            HTTPException: 503, the realm is unreachable.
        """
        address = await self.endpoint("token_endpoint")
        if address is None:
            raise self._is_away("its configuration has no token_endpoint")
        answer = await self._ask(lambda: self._client.post(address, data=dict(form)))
        if answer.status_code in (400, 401, 403):
            return None
        return self._object(answer)

    async def _current(self, max_age_s: float) -> _Known:
        async with self._lock:
            now = time.monotonic()
            if self._known is None or now - self._known.read > max_age_s:
                self._known = await self._read(now)
            return self._known

    async def _read(self, now: float) -> _Known:
        if now - self._away_since < self._times.away:
            raise self._is_away("its last answer failed a moment ago")
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
    """Return the RSA signing keys by their ids; unreadable keys and keys for other uses are left out."""
    keys: dict[str | None, jwt.PyJWK] = {}
    listed = content.get("keys")
    for key in listed if isinstance(listed, list) else []:
        if isinstance(key, dict) and key.get("kty") == "RSA" and key.get("use", "sig") == "sig":
            try:
                keys[key.get("kid")] = jwt.PyJWK(key, "RS256")
            except jwt.PyJWTError as error:
                logger.warning("A key of the realm cannot be read: %s", error)
    return keys
