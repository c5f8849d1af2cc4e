from dataclasses import dataclass
from pathlib import Path

import pytest

from lib.demo.local_server import LocalServer
from tests.exchange.studies import write_studies
from tests.server.login.people import Client, token_of, write_users


@dataclass
class Guarded:
    """Running server with a login."""

    server: LocalServer
    studies: Path
    users: Path

    @property
    def url(self):
        return self.server.url

    def browser(self):
        return Client(self.url)

    def program(self, name):
        return Client(self.url, token_of(self.url, name))


@pytest.fixture(scope="package")
def guarded(tmp_path_factory):
    root = tmp_path_factory.mktemp("guarded")
    studies, users = write_studies(root / "studies"), write_users(root / "users")
    conf = {"users": str(users), "labels": "lesion,cyst", "model_dir": str(root / "model"), "tracking": "None"}
    with LocalServer(studies, conf, root / "server.log") as server:
        yield Guarded(server, studies, users)
