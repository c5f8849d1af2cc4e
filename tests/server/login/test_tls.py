"""HTTPS, by the server itself and by nginx with the configuration of the documentation."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
import requests

from lib.demo.local_server import LocalServer, free_port
from lib.server.audit import last_records
from lib.server.project import Project
from tests.exchange.studies import write_studies
from tests.installed import ROOT, need_nginx, nginx
from tests.server.login.people import PASSWORD, Client, write_users

NGINX_CONF = ROOT / "docs" / "nginx.conf"
NAME = "viewer.hospital.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    files = (folder / "cert.pem", folder / "key.pem")
    names = f"subjectAltName=IP:127.0.0.1,DNS:{NAME}"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    command += ["-addext", names, "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(command, check=True, capture_output=True)
    return files


@contextmanager
def server(root, **options):
    studies, users = write_studies(root / "studies"), write_users(root / "users")
    conf = {"users": str(users), "model_dir": str(root / "model"), "tracking": "None", "allowed_hosts": NAME}
    with LocalServer(studies, conf, root / "server.log", **options) as running:
        yield running


def browser_of(url, certificate):
    browser = Client(url)
    # Else the certificates of the environment would take the place of this one.
    browser.trust_env, browser.verify = False, str(certificate[0])
    return browser


def log_in_and_out(browser):
    """Log in and out, and check that the cookie is sent over HTTPS only."""
    page = browser.get("/", headers={"Accept": "text/html"})
    assert page.headers["location"] == "/login?next=%2F"
    logged_in = browser.log_in("anna")
    assert logged_in.status_code == 303, logged_in.text
    assert "Secure" in logged_in.headers["set-cookie"]
    assert browser.get("/auth/token/valid").json()["username"] == "anna"
    assert browser.post("/logout", headers={"Origin": browser.url}).status_code == 200
    assert browser.get("/info/").status_code == 401


def test_server_speaks_https_itself(tmp_path, certificate):
    with server(tmp_path, certificate=certificate) as running:
        log_in_and_out(browser_of(running.url, certificate))
        with pytest.raises((http.client.BadStatusLine, ConnectionError)):
            plain = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
            plain.request("GET", "/health")
            plain.getresponse()


@contextmanager
def proxied(root, port_of_server, certificate):
    """Run nginx with the documented configuration, except for its port, files and upstream."""
    port = free_port()
    conf = NGINX_CONF.read_text()
    for documented, here in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/certs/viewer.hospital.example.pem": str(certificate[0]),
        "/etc/ssl/private/viewer.hospital.example.key": str(certificate[1]),
        "http://127.0.0.1:8000": f"http://127.0.0.1:{port_of_server}",
    }.items():
        assert documented in conf
        conf = conf.replace(documented, here)
    folders = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{name}_temp_path {root}/{name};\n" for name in folders)
    own = f"daemon off; pid {root}/pid; error_log {root}/error.log; events {{}}\n"
    (root / "nginx.conf").write_text(f"{own}http {{ access_log off;\n{places}{conf}}}\n")
    process = subprocess.Popen([nginx(), "-c", str(root / "nginx.conf"), "-e", str(root / "error.log")])
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def behind_nginx(tmp_path_factory, certificate):
    need_nginx()
    root = tmp_path_factory.mktemp("proxied")
    with server(root) as running, proxied(root, running.port, certificate) as port:
        browser, end = browser_of(f"https://127.0.0.1:{port}", certificate), time.monotonic() + 10
        while time.monotonic() < end:
            try:
                assert browser.get("/health").ok
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield running, port


def test_session_behind_nginx(behind_nginx, certificate):
    _, port = behind_nginx

    log_in_and_out(browser_of(f"https://127.0.0.1:{port}", certificate))


def test_address_of_the_client_is_known_and_cannot_be_made_up(behind_nginx, certificate, tmp_path):
    running, port = behind_nginx
    context = ssl.create_default_context(cafile=certificate[0])
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port, context=context, source_address=("127.0.0.2", 0), timeout=30
    )
    form = urlencode({"username": "anna", "password": PASSWORD})
    headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Forwarded-For": "10.9.9.9"}
    connection.request("POST", "/auth/token", form, {**headers, "Host": f"{NAME}:{port}"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    assert "access_token" in json.loads(answer.read())

    studies = Path(running.log).parent / "studies"
    assert last_records(Project(studies).audit, 1)[0].address == "127.0.0.2"


def test_pages_of_others_are_refused_behind_nginx_too(behind_nginx, certificate):
    _, port = behind_nginx
    browser = browser_of(f"https://127.0.0.1:{port}", certificate)

    for origin in (f"http://127.0.0.1:{port}", "https://127.0.0.1", "https://evil.example"):
        assert browser.post("/login", headers={"Origin": origin}).status_code == 403


def test_login_over_a_network_without_encryption_is_refused(behind_nginx):
    """As behind a proxy that does no HTTPS, or one that does not say so."""
    running, _ = behind_nginx

    for path in ("/login", "/auth/", "/info/"):
        answer = Client(running.url).get(path, headers={"X-Forwarded-For": "10.1.2.3"})
        assert answer.status_code == 403
        assert "over HTTPS only" in answer.json()["detail"]
