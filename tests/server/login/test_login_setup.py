"""A login that cannot be used is refused by a sentence before the server starts."""

from __future__ import annotations

import subprocess
import sys

import pytest
import uvicorn

from lib.demo.local_server import ROOT
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


def refusal(studies, *conf, host="127.0.0.1", **environment):
    command = [sys.executable, "-P", "-m", "lib.server.launch", "start_server", "--app", "apps/inextremis"]
    command += ["--studies", str(studies), "--host", host, "--port", "8765"]
    command += [word for name, value in conf for word in ("--conf", name, str(value))]
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=variables)
    assert ended.returncode == 2, ended.stderr
    return ended.stderr


REALM = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": "https://login.hospital.example/realms/x"}


@pytest.mark.parametrize(
    ("users", "environment", "sentence"),
    [
        ("missing", {}, "cannot be read (No such file or directory); scripts/users.sh makes one"),
        ("empty", {}, "has no user; scripts/users.sh adds one"),
        ("open", {}, "Others may read"),
        ("right", REALM, "There are two logins"),
        (None, {**REALM, "MONAI_LABEL_AUTH_REALM_URI": "http://login.hospital.example/"}, "give an https:// address"),
        (None, {**REALM, "MONAI_LABEL_AUTH_REALM_URI": "login.hospital.example"}, "expected an address such as"),
    ],
)
def test_login_that_cannot_be_used_is_a_sentence(tmp_path, users, environment, sentence):
    studies = write_studies(tmp_path / "studies")
    write_users(tmp_path / "right")
    write_users(tmp_path / "open").chmod(0o644)
    write_users(tmp_path / "empty", {})
    conf = [] if users is None else [("users", tmp_path / users)]

    assert sentence in refusal(studies, *conf, **environment)


def test_network_without_encryption_is_refused_before_anything_is_made(tmp_path):
    conf = [("users", write_users(tmp_path / "users"))]

    assert "would listen on 0.0.0.0 without encryption" in refusal(tmp_path, *conf, host="0.0.0.0")
