"""Hash and check passwords with bcrypt."""

from __future__ import annotations

import bcrypt

MIN_CHARACTERS, MAX_BYTES = 12, 72  # bcrypt ignores further bytes
# Hash of an unknown password. Unknown names are checked against it, so that they take as long as known ones.
DUMMY_HASH = "$2b$12$sQdB.o/uZHhOtdb1N3eTEeI8C6c7SQooNM1W6I6QEd.Qa7YXOLxZ6"


def check_new_password(password: str) -> None:
    """Raise ValueError if a new password is too short or too long."""
    if len(password) < MIN_CHARACTERS:
        raise ValueError(f"The password has {len(password)} characters; expected at least {MIN_CHARACTERS}.")
    if len(password.encode()) > MAX_BYTES:
        raise ValueError(f"The password has {len(password.encode())} bytes; expected at most {MAX_BYTES}.")


def hash_of(password: str) -> str:
    """Return the hash of a password, with a new salt."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt()).decode()


def is_password(password: str, hashed: str) -> bool:
    """Tell whether a password has this hash; takes some tenths of a second for any password."""
    content = password.encode(errors="replace")
    return bcrypt.checkpw(content[:MAX_BYTES], hashed.encode()) and len(content) <= MAX_BYTES
