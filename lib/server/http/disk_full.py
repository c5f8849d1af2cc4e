"""Answer 507 if a file cannot be written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException

logger = logging.getLogger(__name__)


@contextmanager
def writing(what: str, done: str = "stored", gone: HTTPException | None = None) -> Iterator[None]:
    """Turn an OSError into an HTTPException.

    Args:
        what: Subject of the message, such as "The mask".
        done: Participle for the message, as in "could not be stored".
        gone: Raised instead if a file is missing.

    Raises:
        HTTPException: 507, the disk is full or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if gone is not None and isinstance(error, FileNotFoundError):
            raise gone from error
        sentence = f"{what} could not be {done} ({error.strerror}). Make room on the server's disk, then retry."
        logger.error("%s", sentence)
        raise HTTPException(507, sentence) from error
