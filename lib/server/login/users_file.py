"""Read and write the users file: names, roles and password hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lib.annotations.atomic_write import write_atomically
from lib.server.login.user import Role

_NAME = re.compile(r"\w[\w.@ -]{0,62}\w|\w")
_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
_HEAD = "# NAME:ROLE:HASH, one user a line; scripts/users.sh writes this file.\n"


class UsersFileError(ValueError):
    """Users file that cannot be used; the text states the reason and the remedy."""


@dataclass(frozen=True)
class Account:
    """Line of the users file.

    Attributes:
        hashed: Bcrypt hash of the password.
    """

    name: str
    role: Role
    hashed: str


def check_name(name: str) -> str:
    """Return a user name; raise UsersFileError if it is not valid."""
    if not _NAME.fullmatch(name):
        raise UsersFileError(
            f"The name is {name[:80]!r}; expected at most 64 letters, digits, blanks and . @ - _, no blank at an end."
        )
    return name


def role_named(text: str) -> Role:
    """Return the role of a name; raise UsersFileError if there is none."""
    try:
        return Role[text.upper()]
    except KeyError as error:
        raise UsersFileError(f"The role is {text[:80]!r}; expected {', '.join(map(str, Role))}.") from error


class UsersFile:
    """Users file, which is read again whenever it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._accounts: dict[str, Account] = {}

    def accounts(self) -> dict[str, Account]:
        """Return the accounts by name.

        Raises:
            UsersFileError: The file is missing, readable by others, or has a line that is not valid.
        """
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                if status.st_mode & 0o027:
                    raise UsersFileError(f"Others may read {self._path}, or change it; run: chmod 600 {self._path}")
                self._accounts, self._stamp = _parsed(self._path.read_text("utf-8")), stamp
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
            raise UsersFileError(
                f"The file of users {self._path} cannot be read ({reason}); scripts/users.sh makes one."
            ) from error
        return self._accounts

    def change(self, account: Account | None, name: str) -> None:
        """Replace the account of this name, or remove it.

        Raises:
            UsersFileError: As `accounts`.
            OSError: The file cannot be written; it is left unchanged.
        """
        accounts = dict(self.accounts()) if self._path.exists() else {}
        accounts.pop(name, None)
        if account is not None:
            accounts[name] = account
        lines = [f"{one.name}:{one.role}:{one.hashed}\n" for one in accounts.values()]
        write_atomically(self._path, (_HEAD + "".join(lines)).encode())


def _parsed(text: str) -> dict[str, Account]:
    accounts: dict[str, Account] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        # Messages do not quote the line: it may hold a password.
        parts = line.strip().split(":")
        if len(parts) != 3 or not _HASH.fullmatch(parts[2]):
            raise UsersFileError(
                f"Line {number} of the file of users is not NAME:ROLE:HASH; write it by scripts/users.sh."
            )
        name, role = check_name(parts[0]), role_named(parts[1])
        if name in accounts:
            raise UsersFileError(f"The file of users has {name!r} twice; take one of the lines out.")
        accounts[name] = Account(name, role, parts[2])
    return accounts
