"""Read a password from a terminal or a pipe."""

from __future__ import annotations

import getpass
import sys


def read_password(question: str) -> str:
    """Read a password without showing it; read one line if the input is a pipe."""
    return getpass.getpass(question) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
