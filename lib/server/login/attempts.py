"""Limit failed logins by name and by address."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import HTTPException

WINDOW_S = 900.0
OF_A_NAME, OF_AN_ADDRESS = 10, 50
_MAX_KEPT = 10_000


class Attempts:
    """Counts each attempt from its beginning, so that many at once are counted too; right ones are forgotten.

    Args:
        window_s: for which an attempt counts.
        of_a_name: attempts for one name, from wherever they come.
        of_an_address: attempts from one address, for whatever names.
        clock: in seconds.
    """

    def __init__(
        self,
        window_s: float = WINDOW_S,
        of_a_name: int = OF_A_NAME,
        of_an_address: int = OF_AN_ADDRESS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window_s, self._most = window_s, {"name": of_a_name, "address": of_an_address}
        self._clock = clock
        self._made: dict[tuple[str, str], list[float]] = {}

    def begin(self, name: str, address: str) -> None:
        """Raises: HTTPException: 429, too many have failed."""
        now, keys = self._clock(), _keys(name, address)
        for key in keys:
            made = self._made[key] = [when for when in self._made.get(key, []) if now - when < self._window_s]
            if len(made) >= self._most[key[0]]:
                wait_s = int(self._window_s - (now - made[0])) + 1
                raise HTTPException(
                    429,
                    f"Too many logins have failed; try again in {-(-wait_s // 60)} minutes.",
                    {"Retry-After": str(wait_s)},
                )
        for key in keys:
            self._made[key].append(now)
        if len(self._made) > _MAX_KEPT:
            self._made = {key: made for key, made in self._made.items() if made and now - made[-1] < self._window_s}

    def succeeded(self, name: str, address: str) -> None:
        """Forgets the attempts for this name, and the last one from this address."""
        self._made.pop(_keys(name, address)[0], None)
        self.withdraw(name, address)

    def withdraw(self, name: str, address: str) -> None:
        """Forgets the last attempt, which was neither right nor wrong."""
        for key in _keys(name, address):
            made = self._made.get(key, [])
            if made:
                made.pop()
            if not made:
                self._made.pop(key, None)


def _keys(name: str, address: str) -> list[tuple[str, str]]:
    """A realm may take a name however it is written."""
    return [("name", name.strip().casefold()[:200]), ("address", address)]
