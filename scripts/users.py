"""Add, change, remove and list users of a server without OpenID Connect; changes take effect at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lib.server.login.passwords import check_new_password, hash_of
from lib.server.login.user import Role
from lib.server.login.users_file import Account, UsersFile, UsersFileError, check_name, role_named
from lib.server.process.modes import set_umask
from lib.server.process.typed import read_password
from scripts.terminal import refuse, script_parser, tell

EXAMPLE = """%(prog)s add anna --role annotator
%(prog)s list"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    path = options.file.absolute()
    set_umask(group=False)
    try:
        if options.command == "list":
            for account in UsersFile(path).accounts().values():
                tell(f"{account.name}: {account.role}")
            return 0
        _change(UsersFile(path), path, options)
    except (UsersFileError, ValueError, OSError) as error:
        return refuse(str(error))
    return 0


def _change(file: UsersFile, path: Path, options: argparse.Namespace) -> None:
    name = check_name(options.name)
    known = file.accounts().get(name) if path.exists() else None
    if options.command == "add":
        if known is not None:
            raise UsersFileError(f"There is a user {name!r} already; the commands role and password change one.")
        file.change(Account(name, role_named(options.role), _new_hash(name)), name)
        tell(f"{name!r} may log in to a server that is started with --conf users {path}")
        return
    if known is None:
        raise UsersFileError(f"There is no user {name!r} in {path}; the command list shows them.")
    if options.command == "role":
        file.change(replace(known, role=role_named(options.role)), name)
    elif options.command == "password":
        file.change(replace(known, hashed=_new_hash(name)), name)
        tell(f"Sessions of {name!r} with the old password have ended.")
    else:
        file.change(None, name)
        tell(f"{name!r} may no longer log in, and sessions of {name!r} have ended.")


def _new_hash(name: str) -> str:
    password = read_password(f"Password of {name}: ")
    if sys.stdin.isatty() and read_password("Once more: ") != password:
        raise ValueError("The two passwords differ; run the command again.")
    check_new_password(password)
    return hash_of(password)


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    parser.add_argument(
        "--file", type=Path, default=folder / "inextremis" / "users", help="file with the users (default: %(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names and roles")
    for command, meaning in (
        ("add", "add a user; asks for the password"),
        ("role", "change the role of a user"),
        ("password", "change the password of a user; asks for it"),
        ("remove", "remove a user"),
    ):
        of_command = commands.add_parser(command, help=meaning)
        of_command.add_argument("name", help="name of the user")
        if command in ("add", "role"):
            of_command.add_argument("--role", required=True, help=", ".join(map(str, Role)))
    return parser


if __name__ == "__main__":
    sys.exit(main())
