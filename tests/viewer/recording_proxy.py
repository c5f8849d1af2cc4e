"""A proxy that passes nothing on: what a browser asks of it is what it would ask of other hosts."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

OF_THE_BROWSER = {
    "accounts.google.com",
    "android.clients.google.com",
    "clients2.google.com",
    "clientservices.googleapis.com",
    "content-autofill.googleapis.com",
    "edgedl.me.gvt1.com",
    "mtalk.google.com",
    "optimizationguide-pa.googleapis.com",
    "redirector.gvt1.com",
    "safebrowsing.googleapis.com",
    "update.googleapis.com",
    "www.google.com",
}
"""Hosts that Chromium asks whatever the page, in spite of its flags."""


@contextmanager
def recording_proxy():
    """Its address, and a list that grows by each method and target that a page asks of it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def refuse(self):
            host = urlsplit(self.path if "//" in self.path else f"//{self.path}").hostname
            if host not in OF_THE_BROWSER:
                asked.append(f"{self.command} {self.path}")
            self.send_error(502)

        do_CONNECT = do_GET = do_HEAD = do_POST = do_OPTIONS = refuse  # noqa: N815

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
