"""An archive that notes all that reaches it, and answers as archives and attackers may."""

from __future__ import annotations

import gzip
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOUND = json.dumps([{"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}]).encode()
HTML = b"<script>alert(1)</script>"
FRAME = b"--x\r\nContent-Type: application/octet-stream\r\n\r\n" + b"pixels" * 100_000 + b"\r\n--x--\r\n"
FIXED = {
    "redirects": (302, b"", {"Location": "/tools/shutdown"}),
    "redirects for good": (308, b"", {"Location": "http://169.254.169.254/latest/meta-data"}),
    "sends html": (200, HTML, {"Content_Type": "text/html"}),
    "sends svg": (200, HTML, {"Content_Type": "image/svg+xml"}),
    "sends xhtml": (200, HTML, {"Content_Type": "application/xhtml+xml; charset=utf-8"}),
    "sends script": (200, HTML, {"Content_Type": "text/javascript"}),
    "sends no type": (200, HTML, {}),
    "fails with html": (500, HTML, {"Content_Type": "text/html"}),
    "finds nothing": (404, HTML, {"Content_Type": "text/html"}),
    "asks for a login": (401, HTML, {"WWW_Authenticate": 'Basic realm="inner"'}),
    "compresses": (200, gzip.compress(FOUND), {"Content_Type": "application/dicom+json", "Content_Encoding": "gzip"}),
}
"""Status, content and headers of the answer, by behaviour."""


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeArchive:
    """`behaviour` says how it answers; `asked` is what reached it."""

    port: int
    behaviour: str = "answers"
    asked: list[Asked] = field(default_factory=list)
    hangs_s: float = 3.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/dicom-web"


@contextmanager
def fake_archive():
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            archive.asked.append(Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            if archive.behaviour in FIXED:
                status, content, headers = FIXED[archive.behaviour]
                self.send(status, content, **headers)
            else:
                getattr(self, "_" + archive.behaviour.replace(" ", "_"))()

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815

        def send(self, status, body=b"", **headers):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def _answers(self):
            self.send(
                200,
                FRAME if "/frames/" in self.path else FOUND if self.command == "GET" else b"{}",
                Content_Type="multipart/related; boundary=x" if "/frames/" in self.path else "application/dicom+json",
                ETag='"1"',
                Set_Cookie="session=of-the-archive",
                Access_Control_Allow_Origin="*",
                Content_Security_Policy="default-src *",
                X_Internal="10.0.0.1",
            )

        def _hangs(self):
            time.sleep(archive.hangs_s)
            self._answers()

        def _hangs_in_the_middle(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            self.wfile.flush()
            time.sleep(archive.hangs_s)

        def _closes(self):
            self.close_connection = True

        def log_message(self, *arguments):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 512
        daemon_threads = True

        def handle_error(self, *arguments):
            pass  # the client went away

    server = Server(("127.0.0.1", 0), Handler)
    archive = FakeArchive(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
