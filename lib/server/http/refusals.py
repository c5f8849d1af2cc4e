"""Refuse a request with a status and one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fastapi import HTTPException

SHOWN_CHARACTERS = 80


class RefusedError(Exception):
    """A request that is not served.

    Args:
        status: of HTTP, 400 to 599.
        sentence: for the user: what was wrong, what was expected, what to do.
        headers: of the answer, beside those of its JSON.
    """

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, dict(headers or {})

    @property
    def body(self) -> bytes:
        """As FastAPI answers: {"detail": sentence}."""
        return json.dumps({"detail": self.sentence}).encode()


@contextmanager
def answered_with(status: int, *errors: type[Exception]) -> Iterator[None]:
    """Turns errors whose text is for the user into an HTTPException of a status."""
    try:
        yield
    except errors as error:
        raise HTTPException(status, str(error)) from error


def shown(value: bytes | str) -> str:
    """A part of a request as a sentence may repeat it: ASCII, quoted, no longer than 80 characters."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return ascii(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")
