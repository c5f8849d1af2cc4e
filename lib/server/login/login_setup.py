"""Set up the login from the settings: a users file, a realm of OpenID Connect, or none."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from monailabel.config import settings

from lib.server.login.code_flow import CodeFlow
from lib.server.login.directory import Directory
from lib.server.login.local_users import LocalUsers
from lib.server.login.login import Login
from lib.server.login.login_sessions import LoginSessions
from lib.server.login.realm import Realm
from lib.server.login.realm_users import RealmUsers
from lib.server.login.users_file import UsersFile, UsersFileError
from lib.server.process.network import is_loopback
from lib.server.project import Project

CLIENT_SECRET = "MONAI_LABEL_AUTH_CLIENT_SECRET"


class LoginSetupError(ValueError):
    """Login settings that cannot be used; the text states the reason and the remedy."""


def directory_of(users: Path | None) -> Directory | None:
    """Return the directory of a users file or of the realm; None if the server requires no login.

    Raises:
        LoginSetupError: Two logins are set, or one that cannot be used.
    """
    if not settings.MONAI_LABEL_AUTH_ENABLE:
        return None if users is None else _local_users(users)
    if users is not None:
        raise LoginSetupError(
            "There are two logins, --conf users and MONAI_LABEL_AUTH_ENABLE in the environment; take one of them away."
        )
    address = settings.MONAI_LABEL_AUTH_REALM_URI
    parts = urlsplit(address)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise LoginSetupError(
            f"The realm MONAI_LABEL_AUTH_REALM_URI is {address!r}; expected an address such as "
            "https://login.hospital.example/realms/monailabel."
        )
    if parts.scheme != "https" and not is_loopback(parts.hostname):
        raise LoginSetupError(
            f"The realm MONAI_LABEL_AUTH_REALM_URI is {address!r}, and its keys could be replaced on the network; "
            "give an https:// address."
        )
    return RealmUsers(Realm(address), settings.MONAI_LABEL_AUTH_CLIENT_ID, os.environ.get(CLIENT_SECRET, ""))


def require_login(directory: Directory | None) -> None:
    """Raise LoginSetupError if several people would read each study without a login."""
    if directory is None:
        raise LoginSetupError(
            "Several people would read each study (--conf readers, --conf review) without a login, and nobody could "
            "tell them apart; give --conf users FILE, which scripts/users.sh writes, or set "
            "MONAI_LABEL_AUTH_ENABLE=true."
        )


def _local_users(path: Path) -> LocalUsers:
    file = UsersFile(path)
    try:
        if not file.accounts():
            raise UsersFileError(f"The file of users {path} has no user; scripts/users.sh adds one.")
    except UsersFileError as error:
        raise LoginSetupError(str(error)) from error
    return LocalUsers(file)


def login_of(directory: Directory, project: Project, session_hours: float) -> Login:
    """Return the login of a project, with its stored sessions."""
    suffix = hashlib.sha256(str(project.folder).encode()).hexdigest()[:8]
    sessions = LoginSessions(project.login_sessions, session_hours * 3600)
    return Login(directory, sessions, f"inextremis-{suffix}")


def code_flow_of(directory: Directory) -> CodeFlow | None:
    """Return the login of browsers at a realm; None without a realm."""
    return CodeFlow(directory) if isinstance(directory, RealmUsers) else None
