"""Read a password from a terminal or a pipe."""

from __future__ import annotations

import getpass
import sys


def read_password(question: str) -> str:
    """A password, which is not shown; from a pipe, as from a program, one line is read."""
    return getpass.getpass(question) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
