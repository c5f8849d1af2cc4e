"""Refuse a request with a status and one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fastapi import HTTPException

SHOWN_CHARACTERS = 80


class RefusedError(Exception):
    """Request that is not served.

    Args:
        status: HTTP status, 400 to 599.
        sentence: Message for the user: what was wrong, what was expected, what to do.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, dict(headers or {})

    @property
    def body(self) -> bytes:
        """JSON of the answer, in FastAPI's form: {"detail": sentence}."""
        return json.dumps({"detail": self.sentence}).encode()


@contextmanager
def answered_with(status: int, *errors: type[Exception]) -> Iterator[None]:
    """Turn errors whose text is for the user into an HTTPException with a status."""
    try:
        yield
    except errors as error:
        raise HTTPException(status, str(error)) from error


def shown(value: bytes | str) -> str:
    """Quote a part of a request for a message, as ASCII of at most 80 characters."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return ascii(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")
