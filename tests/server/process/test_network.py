"""A server without a login is reachable from this machine only, unless a setting allows more."""

from __future__ import annotations

import socket
from contextlib import nullcontext

import pytest
import uvicorn

from lib.server.process.network import Listening, NetworkError, require_login_beyond_loopback, starting_server
from tests.server.http.serving import request, send, serving


def listening(**settings):
    return Listening(uvicorn.Config("none:none", **settings))


def check(server, allowed=False):
    require_login_beyond_loopback(server, allowed=allowed)


LOOPBACK = [{"host": host} for host in ("127.0.0.1", "127.8.9.10", "::1", "localhost")]


@pytest.mark.parametrize("settings", [*LOOPBACK, {"uds": "/run/socket"}], ids=str)
def test_loopback_needs_no_login(settings):
    check(listening(**settings))


BEYOND = ["0.0.0.0", "::", "", None, "192.168.1.5", "fe80::1", "::ffff:10.0.0.1", "pacs.hospital.example", "127.evil"]


@pytest.mark.parametrize("host", BEYOND)
def test_other_addresses_need_a_login_or_the_setting(host):
    with pytest.raises(NetworkError, match="without a login.*--host 127.0.0.1.*allow_network_without_login true"):
        check(listening(host=host))
    check(listening(host=host), allowed=True)


def test_unknown_server_counts_as_beyond_loopback():
    with pytest.raises(NetworkError, match="unknown address"):
        check(None)


@pytest.mark.parametrize(("address", "is_refused"), [("127.0.0.1", False), ("0.0.0.0", True)])
@pytest.mark.parametrize("way", ["by a supervisor", "by number"])
def test_open_sockets_are_checked(address, is_refused, way):
    with socket.socket() as opened:
        opened.bind((address, 0))
        server = listening(fd=opened.fileno()) if way == "by number" else Listening(listening().config, (opened,))
        with pytest.raises(NetworkError, match=address) if is_refused else nullcontext():
            check(server)


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
def test_address_for_browsers(settings, url):
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
