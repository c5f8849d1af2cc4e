"""Without a login the server is reached from this machine only, unless it is told otherwise."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import uvicorn

from lib.demo.local_server import free_port
from lib.server.process.network import Listening, NetworkError, require_login_beyond_loopback, starting_server
from tests.installed import ROOT
from tests.server.http.serving import request, send, serving


def listening(**settings):
    return Listening(uvicorn.Config("none:none", **settings))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_needs_no_login(host):
    require_login_beyond_loopback(listening(host=host), login=False, allowed=False)


BEYOND = ["0.0.0.0", "::", "", None, "192.168.1.5", "fe80::1", "::ffff:10.0.0.1", "pacs.hospital.example", "127.evil"]


@pytest.mark.parametrize("host", BEYOND)
def test_anything_else_is_refused_by_a_sentence_that_says_what_to_do(host):
    with pytest.raises(NetworkError, match="without a login.*--host 127.0.0.1.*allow_network_without_login true"):
        require_login_beyond_loopback(listening(host=host), login=False, allowed=False)


@pytest.mark.parametrize("host", BEYOND)
@pytest.mark.parametrize(("login", "allowed"), [(True, False), (False, True)])
def test_anything_else_is_served_with_a_login_or_where_it_is_allowed(host, login, allowed):
    require_login_beyond_loopback(listening(host=host), login, allowed)


def test_unknown_server_counts_as_beyond_loopback():
    with pytest.raises(NetworkError, match="unknown address"):
        require_login_beyond_loopback(None, login=False, allowed=False)


def test_socket_of_this_machine_needs_no_login(tmp_path):
    require_login_beyond_loopback(listening(uds=str(tmp_path / "socket")), login=False, allowed=False)


@pytest.mark.parametrize(("address", "is_refused"), [("127.0.0.1", False), ("0.0.0.0", True)])
@pytest.mark.parametrize("way", ["by a supervisor", "by number"])
def test_sockets_that_were_opened_before_are_looked_at(address, is_refused, way):
    with socket.socket() as opened:
        opened.bind((address, 0))
        server = listening(fd=opened.fileno()) if way == "by number" else Listening(listening().config, (opened,))
        if is_refused:
            with pytest.raises(NetworkError, match=address):
                require_login_beyond_loopback(server, login=False, allowed=False)
        else:
            require_login_beyond_loopback(server, login=False, allowed=False)


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"host": "127.0.0.1", "port": 8001}, "http://127.0.0.1:8001"),
        ({"host": "::1", "port": 8001}, "http://[::1]:8001"),
        ({"host": "pacs.example", "port": 8001, "ssl_certfile": "cert.pem"}, "https://pacs.example:8001"),
        ({"host": "0.0.0.0", "port": 8001}, f"http://{socket.gethostname()}:8001"),
        ({"uds": "/run/server"}, None),
        ({"fd": 3}, None),
        ({"host": "127.0.0.1", "port": 0}, None),
    ],
)
def test_address_for_a_browser_is_told_where_there_is_one(settings, url):
    assert listening(**settings).url == url


def test_server_that_starts_is_found_and_no_other():
    found = []
    other = uvicorn.Config("none:none", host="0.0.0.0")
    with serving([], before_listening=lambda: found.append(starting_server())) as port:
        assert send(port, request())[0] == 404

    (server,) = found
    assert server.config is not other
    assert (server.addresses, server.config.port) == (["127.0.0.1"], port)


def test_process_without_a_server_has_none():
    assert starting_server() is None


APPLICATION = """
import sys
from contextlib import asynccontextmanager
import uvicorn
from starlette.applications import Starlette
from lib.server.process.network import NetworkError, end_process, require_login_beyond_loopback, starting_server

@asynccontextmanager
async def lifespan(application):
    try:
        require_login_beyond_loopback(starting_server(), login=False, allowed=False)
    except NetworkError as error:
        end_process(str(error))
    yield

uvicorn.run(Starlette(lifespan=lifespan), host=sys.argv[1], port=int(sys.argv[2]))
"""


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_process_ends_with_the_sentence_before_it_listens(host):
    ended = subprocess.run(
        [sys.executable, "-c", APPLICATION, host, str(free_port())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert ended.returncode == 2
    assert f"would listen on {host} without a login" in ended.stderr
    assert "Traceback" not in ended.stderr and "running on" not in ended.stderr
