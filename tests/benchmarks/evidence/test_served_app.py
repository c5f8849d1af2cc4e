"""What an annotator is told when the server refuses, and when a training fails."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.evidence.served_app import ServedApp, ServedAppError


@pytest.fixture
def app(tmp_path: Path, request: pytest.FixtureRequest) -> ServedApp:
    """Of a server that answers everything with the same status and text."""
    status, text = request.param

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    request.addfinalizer(server.server_close)
    request.addfinalizer(server.shutdown)
    return ServedApp(f"http://127.0.0.1:{server.server_port}", tmp_path)


@pytest.mark.parametrize("app", [(409, "no mask was given")], indirect=True)
def test_a_refusal_names_the_request_and_the_reason(app: ServedApp) -> None:
    with pytest.raises(ServedAppError, match="POST /annotations/scan/accept: 409, no mask was given"):
        app.accept("scan")


@pytest.mark.parametrize("app", [(409, "There is no trained model yet")], indirect=True)
def test_there_is_no_version_before_the_first_network(app: ServedApp) -> None:
    assert app.model_version("scan") is None


@pytest.mark.parametrize(
    ("app", "runs"),
    [((200, f'{{"status": "{status}"}}'), status != "DONE") for status in ("SUBMITTED", "RUNNING", "DONE")],
    indirect=["app"],
)
def test_a_training_runs_until_it_is_done(app: ServedApp, runs: bool) -> None:
    assert app.is_training() is runs


@pytest.mark.parametrize("app", [(200, '{"status": "ERROR", "details": ["The disk is full."]}')], indirect=True)
def test_a_training_that_failed_is_not_taken_for_one_that_is_done(app: ServedApp) -> None:
    with pytest.raises(ServedAppError, match=r"(?s)ended as ERROR.*The disk is full"):
        app.is_training()
