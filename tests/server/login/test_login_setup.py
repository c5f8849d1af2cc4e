"""A login that cannot be used is refused by a sentence, and the server does not start."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import uvicorn
from monailabel.config import settings

from lib.demo.local_server import ROOT
from lib.server.login.login_setup import LoginSetupError, directory_of
from lib.server.process.network import Listening, NetworkError, require_encryption_beyond_loopback
from tests.exchange.studies import write_studies
from tests.server.login.people import write_users


def check(host, proxies=(), **settings):
    require_encryption_beyond_loopback(Listening(uvicorn.Config("none:none", host=host, **settings)), proxies)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", None])
def test_login_needs_encryption_except_on_this_machine(host):
    with pytest.raises(NetworkError, match="without encryption.*--tls-cert.*trusted_proxies"):
        check(host)
    check(host, ["10.1.2.3"])
    check(host, ssl_certfile="cert.pem")
    check("127.0.0.1")


def refusal(studies, *conf, host="127.0.0.1"):
    command = [sys.executable, "-P", "-m", "lib.server.launch", "start_server", "--app", "apps/inextremis"]
    command += ["--studies", str(studies), "--host", host, "--port", "8765"]
    command += [word for name, value in conf for word in ("--conf", name, str(value))]
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=variables)
    assert ended.returncode == 2, ended.stderr
    return ended.stderr


REALM = "https://login.hospital.example/realms/x"


@pytest.mark.parametrize(
    ("users", "realm", "sentence"),
    [
        ("missing", None, "cannot be read (No such file or directory); scripts/users.sh makes one"),
        ("empty", None, "has no user; scripts/users.sh adds one"),
        ("open", None, "Others may read"),
        ("right", REALM, "There are two logins"),
        (None, "http://login.hospital.example/", "give an https:// address"),
        (None, "login.hospital.example", "expected an address such as"),
    ],
)
def test_login_that_cannot_be_used_is_refused(tmp_path, monkeypatch, users, realm, sentence):
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", realm is not None)
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", realm or "")
    write_users(tmp_path / "right")
    write_users(tmp_path / "open").chmod(0o644)
    write_users(tmp_path / "empty", {})

    with pytest.raises(LoginSetupError, match=re.escape(sentence)):
        directory_of(users and tmp_path / users)


def test_server_does_not_start_with_a_login_that_cannot_be_used(tmp_path):
    studies = write_studies(tmp_path / "studies")

    assert "cannot be read (No such file or directory)" in refusal(studies, ("users", tmp_path / "missing"))


def test_network_without_encryption_is_refused(tmp_path):
    conf = [("users", write_users(tmp_path / "users"))]

    assert "would listen on 0.0.0.0 without encryption" in refusal(tmp_path, *conf, host="0.0.0.0")
