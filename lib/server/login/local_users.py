"""Check logins against a users file."""

from __future__ import annotations

import hashlib
import logging

import anyio
from fastapi import HTTPException

from lib.server.login.directory import Granted
from lib.server.login.passwords import DUMMY_HASH, is_password
from lib.server.login.user import User
from lib.server.login.users_file import Account, UsersFile, UsersFileError

logger = logging.getLogger(__name__)

# bcrypt is slow by design: tenths of a second for each hash.
_MAX_CHECKS_AT_ONCE = 2


class LocalUsers:
    """Directory of the users in a file; changes of the file apply immediately."""

    def __init__(self, file: UsersFile) -> None:
        self._file = file
        self._limiter = anyio.CapacityLimiter(_MAX_CHECKS_AT_ONCE)

    async def of_token(self, token: str) -> User | None:
        return None  # tokens are session ids, which the directory does not know

    async def of_password(self, name: str, password: str) -> Granted | None:
        account = self._accounts().get(name)
        hashed = DUMMY_HASH if account is None else account.hashed
        is_right = await anyio.to_thread.run_sync(is_password, password, hashed, limiter=self._limiter)
        if account is None or not is_right:
            return None
        return Granted(User(account.name, account.role), _proof(account))

    def of_session(self, user: User, proof: str) -> User | None:
        account = self._accounts().get(user.name or "")
        if account is None or _proof(account) != proof:
            return None
        return User(account.name, account.role)

    def _accounts(self) -> dict[str, Account]:
        try:
            return self._file.accounts()
        except UsersFileError as error:
            logger.error("%s", error)
            raise HTTPException(503, "The server cannot read its file of users; its log says why.") from error


def _proof(account: Account) -> str:
    return hashlib.sha256(account.hashed.encode()).hexdigest()
