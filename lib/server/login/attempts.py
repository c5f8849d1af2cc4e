"""Limit failed logins by name and by address."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import HTTPException

WINDOW_S = 900.0
MAX_PER_NAME, MAX_PER_ADDRESS = 10, 50
_MAX_KEPT = 10_000


class Attempts:
    """Failed and pending logins. An attempt counts from its start, so that concurrent ones are limited too.

    Args:
        window_s: Seconds for which an attempt counts.
        max_per_name: Largest number of attempts with one name, from any address.
        max_per_address: Largest number of attempts from one address, with any name.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        window_s: float = WINDOW_S,
        max_per_name: int = MAX_PER_NAME,
        max_per_address: int = MAX_PER_ADDRESS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window_s, self._limits = window_s, {"name": max_per_name, "address": max_per_address}
        self._clock = clock
        self._made: dict[tuple[str, str], list[float]] = {}

    def begin(self, name: str, address: str) -> None:
        """Count an attempt; raise HTTPException 429 if there are too many."""
        now, keys = self._clock(), _keys(name, address)
        for key in keys:
            made = self._made[key] = [when for when in self._made.get(key, []) if now - when < self._window_s]
            if len(made) >= self._limits[key[0]]:
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
        """Forget all attempts with this name, and the last one from this address."""
        self._made.pop(_keys(name, address)[0], None)
        self.withdraw(name, address)

    def withdraw(self, name: str, address: str) -> None:
        """Forget the last attempt, whose password could not be checked."""
        for key in _keys(name, address):
            made = self._made.get(key, [])
            if made:
                made.pop()
            if not made:
                self._made.pop(key, None)


def _keys(name: str, address: str) -> list[tuple[str, str]]:
    # A realm may ignore case and surrounding blanks.
    return [("name", name.strip().casefold()[:200]), ("address", address)]
