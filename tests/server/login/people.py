"""Define the users of test servers, and log them in."""

from __future__ import annotations

import bcrypt
import requests

from lib.server.login.user import Role
from tests.server.asking import Session

PASSWORD = "six clicks are enough"
# The lowest cost keeps tests fast; `scripts/users.sh` uses a higher one.
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
NAMES = {Role.USER: "uma", Role.ANNOTATOR: "anna", Role.REVIEWER: "rené", Role.ADMIN: "ada"}


def write_users(path, names=NAMES, hashed=HASH):
    """Write a users file with a user of each role, and return its path."""
    path.write_text("".join(f"{name}:{role}:{hashed}\n" for role, name in names.items()), encoding="utf-8")
    path.chmod(0o600)
    return path


class Client(Session):
    """Session that can log in."""

    def log_in(self, name, password=PASSWORD, target="/"):
        """Send the form of the login page."""
        return self.post("/login", data={"name": name, "password": password, "next": target})


def token_of(url, name, password=PASSWORD):
    """Request a token as Slicer's client does."""
    answer = requests.post(f"{url}/auth/token", data={"username": name, "password": password}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]
