"""What is said where something cannot be written."""

from __future__ import annotations

from fastapi import HTTPException


def not_stored(what: str, error: OSError, done: str = "stored") -> HTTPException:
    """A refusal: 507, the disk is full or the folder cannot be written.

    Args:
        what: such as "The mask".
        done: what could not be done with it.
    """
    return HTTPException(
        507, f"{what} could not be {done} ({error.strerror}). Make room on the server's disk, then retry."
    )
