"""Debian's Firefox without a screen, driven by WebDriver BiDi over a WebSocket (RFC 6455) of its own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from contextlib import contextmanager, suppress

from lib.demo.local_server import free_port

ALT = "\ue00a"


class Firefox:
    """One tab."""

    def __init__(self, port):
        self._socket = _websocket(port)
        self._sent = 0
        self._ask("session.new", capabilities={})
        self._tab = self._ask("browsingContext.getTree")["contexts"][0]["context"]
        self._ask("browsingContext.setViewport", context=self._tab, viewport={"width": 1280, "height": 720})

    def goto(self, url):
        self._ask("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def evaluate(self, expression):
        """Return the value of an expression as JSON."""
        script = f"(async () => JSON.stringify(await ({expression})))()"
        answer = self._ask("script.evaluate", expression=script, target={"context": self._tab}, awaitPromise=True)
        assert answer["type"] == "success", answer
        return json.loads(answer["result"].get("value") or "null")

    def wait_until(self, expression, timeout_s=30):
        end = time.monotonic() + timeout_s
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"not so after {timeout_s} s: {expression}"
            time.sleep(0.1)

    def click(self, x, y, *, alt=False):
        press = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        mouse = [{"type": "pointerMove", "x": round(x), "y": round(y)}, {"type": "pause"}, *press, {"type": "pause"}]
        keys = [{"type": "keyDown", "value": ALT}, *[{"type": "pause"}] * 3, {"type": "keyUp", "value": ALT}]
        actions = [{"type": "pointer", "id": "mouse", "actions": mouse}]
        if alt:
            actions.append({"type": "key", "id": "keys", "actions": keys})
        self._ask("input.performActions", context=self._tab, actions=actions)

    def close(self):
        self._ask("browser.close")

    def _ask(self, method, **params):
        self._sent += 1
        _send(self._socket, json.dumps({"id": self._sent, "method": method, "params": params}).encode())
        while True:  # events come between
            answer = json.loads(_receive(self._socket))
            if answer.get("id") == self._sent:
                assert answer["type"] == "success", answer
                return answer["result"]


@contextmanager
def firefox(profile):
    """Args: profile: an empty folder."""
    port = free_port()
    command = [shutil.which("firefox-esr") or "firefox", "--headless", "--no-remote", "--profile", str(profile)]
    # Nothing of this machine's user is read or written.
    process = subprocess.Popen(
        [*command, "--remote-debugging-port", str(port)],
        env={**os.environ, "HOME": str(profile)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                browser = Firefox(port)
                break
            except ConnectionError:
                assert time.monotonic() < end and process.poll() is None, "Firefox did not start"
                time.sleep(0.3)
        yield browser
        with suppress(AssertionError, OSError):
            browser.close()
    finally:
        process.terminate()
        process.wait(20)


def _websocket(port):
    stream = socket.create_connection(("127.0.0.1", port), timeout=60)
    key = base64.b64encode(os.urandom(16)).decode()
    asked = f"GET /session HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    stream.sendall(f"{asked}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += _exactly(stream, 1)
    if b" 101 " not in answer.split(b"\r\n")[0]:
        raise ConnectionError("no WebSocket there yet")
    return stream


def _send(stream, text):
    size = len(text)
    if size < 126:
        head = struct.pack(">BB", 0x81, 0x80 | size)
    else:
        head = struct.pack(">BBH", 0x81, 0xFE, size) if size < 1 << 16 else struct.pack(">BBQ", 0x81, 0xFF, size)
    mask = os.urandom(4)  # which the protocol asks of a client
    stream.sendall(head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(text)))


def _receive(stream):
    text = b""
    while True:
        first, size = _exactly(stream, 2)
        if size in (126, 127):
            size = struct.unpack(*((">H", _exactly(stream, 2)) if size == 126 else (">Q", _exactly(stream, 8))))[0]
        part = _exactly(stream, size)
        if first & 0x0F in (0, 1):
            text += part
            if first & 0x80:
                return text


def _exactly(stream, size):
    read = b""
    while len(read) < size:
        part = stream.recv(size - len(read))
        if not part:
            raise ConnectionError("Firefox closed the connection")
        read += part
    return read
