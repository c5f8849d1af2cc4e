"""Connections of stalled clients are closed, and do not delay other clients."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection

import pytest
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from lib.server.http.request_body import BodyLimits
from lib.server.http.request_gate import Gate
from lib.server.http.timeouts import ConnectionLimits, limit_connections
from lib.server.process.network import drop_server_header, starting_server
from tests.installed import ROOT
from tests.server.http.serving import answer_of, connect, request, send, serving

LIMITS = ConnectionLimits(head_s=1.0, drain_s=1.5, connections=50, check_s=0.1)
MEGABYTES = 20


async def size(request: Request):
    return PlainTextResponse(str(len(await request.body())))


async def large(request: Request):
    async def pieces():
        for _ in range(MEGABYTES):
            yield b"x" * 10**6

    return StreamingResponse(pieces())


async def slow(request: Request):
    await asyncio.sleep(2.5)
    return PlainTextResponse("slow")


ROUTES = [
    Route("/large", large),
    Route("/slow", slow),
    Route("/{path:path}", size, methods=["GET", "POST"]),
]


def limit():
    config = starting_server().config
    limit_connections(config, LIMITS)
    drop_server_header(config)


@pytest.fixture(scope="module")
def port():
    gate = Middleware(Gate, limits=BodyLimits(stall_s=60))
    with serving(ROUTES, [gate], limit) as port:
        yield port


def closed_after_s(client, limit_s=8):
    """Return the time after which the server closes a connection on which the client waits."""
    start = time.monotonic()
    client.settimeout(limit_s)
    answer_of(client)
    return time.monotonic() - start


HALF_HEADS = [b"", b"G", b"GET /info/ HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"]


@pytest.mark.parametrize("before", [b"", request("GET", "/", Connection="keep-alive")], ids=["first", "after another"])
@pytest.mark.parametrize("half", HALF_HEADS)
def test_incomplete_head_closes_the_connection(port, before, half):
    with connect(port) as client:
        client.sendall(before + half)
        assert 0.8 < closed_after_s(client) < 2.5


def test_slow_head_closes_the_connection(port):
    start = time.monotonic()
    with connect(port) as client, pytest.raises(OSError):
        for byte in request("GET", "/", X_Long="x" * 100):
            client.sendall(bytes([byte]))
            time.sleep(0.1)

    assert time.monotonic() - start < 3


def test_endless_body_of_a_refused_request_closes_the_connection(port):
    """The server keeps reading the body of a refused request, for a while."""
    start = time.monotonic()
    head = request("POST", "/", Host="evil.example", Content_Length=10**9, Connection="keep-alive")
    with connect(port) as client, pytest.raises(OSError):
        client.sendall(head)
        while time.monotonic() - start < 8:
            client.sendall(b"x")
            time.sleep(0.05)

    assert time.monotonic() - start < 3


def test_client_that_does_not_read_its_answer_is_disconnected(port):
    with connect(port) as client:
        client.sendall(request("GET", "/large", Connection="keep-alive"))
        time.sleep(4)
        assert len(answer_of(client)[2]) < MEGABYTES * 10**6


@pytest.mark.parametrize("piece", [2**16, 2**20])
def test_client_that_reads_slowly_gets_the_whole_answer(port, piece):
    """The client reads ten pieces a second for three times the limit of a stalled client, then the rest."""
    received, end = 0, time.monotonic() + 3 * LIMITS.drain_s
    with connect(port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**17)
        client.sendall(request("GET", "/large"))
        while chunk := client.recv(piece):
            received += len(chunk)
            if time.monotonic() < end:
                time.sleep(0.1)

    assert received > MEGABYTES * 10**6


def test_connection_is_used_again_and_again(port):
    with closing(HTTPConnection("127.0.0.1", port)) as client:
        client.connect()
        opened = client.sock
        for _ in range(8):
            client.request("GET", "/")
            assert client.getresponse().read() == b"0"
            time.sleep(0.4)
        assert client.sock is opened


def test_request_that_takes_long_behind_the_gate_is_answered(port):
    assert send(port, request("GET", "/slow"))[2] == b"slow"


def is_closed(client):
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "begun",
    [b"GET / HTTP/1.1\r\n", request("POST", "/", Content_Length=100) + b"x"],
    ids=["half a head", "half a body"],
)
def test_more_connections_than_allowed_close_those_that_wait_for_longest(port, begun):
    clients = [connect(port) for _ in range(3 * LIMITS.connections)]
    try:
        for client in clients:
            client.sendall(begun)
        start = time.monotonic()
        assert send(port, request("GET", "/"))[0] == 200
        assert time.monotonic() - start < 1
        assert sum(is_closed(client) for client in clients) >= len(clients) - LIMITS.connections
    finally:
        for client in clients:
            client.close()


def test_answers_do_not_name_the_program(port):
    assert "server" not in send(port, request("GET", "/"))[1]


def test_process_may_open_as_many_files_as_it_is_allowed_to():
    code = "from lib.server.http.timeouts import raise_file_limit; print(raise_file_limit())"
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)

    raised = subprocess.run(
        ["bash", "-c", f'ulimit -Sn 128 && ulimit -Hn {hard} && exec "$0" -c "{code}"', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert int(raised.stdout) == hard
