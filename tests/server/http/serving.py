"""Serve a small application on loopback, and send it the exact bytes that a test gives."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette

from lib.demo.local_server import free_port


@contextmanager
def serving(routes, middleware=(), before_listening=None):
    """Run uvicorn in a thread and yield its port; `before_listening` is called in the lifespan."""

    @asynccontextmanager
    async def lifespan(application):
        if before_listening:
            before_listening()
        yield

    application = Starlette(routes=list(routes), middleware=list(middleware), lifespan=lifespan)
    config = uvicorn.Config(application, "127.0.0.1", free_port(), log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 10
        while not server.started:
            assert thread.is_alive() and time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        yield config.port
    finally:
        server.should_exit = True
        thread.join(10)


def connect(port):
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def send(port, head, body=b"", timeout_s=10):
    """Send bytes and return the status (None if the connection closes without an answer), the headers and the body."""
    with connect(port) as client:
        client.settimeout(timeout_s)
        client.sendall(head + body)
        return answer_of(client)


def request(method="GET", path="/", **headers):
    """Return the head of a request; a header that is None is left out, a list repeats it."""
    headers = {"Host": "127.0.0.1", "Connection": "close", **{n.replace("_", "-"): v for n, v in headers.items()}}
    lines = [f"{method} {path} HTTP/1.1"]
    for name, values in headers.items():
        values = values if isinstance(values, list) else [values]
        lines += [f"{name}: {value}" for value in values if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer_of(client):
    """Read until the server closes the connection; return the status, the headers and the body."""
    received = b""
    try:
        while chunk := client.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return None, {}, b""
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body
