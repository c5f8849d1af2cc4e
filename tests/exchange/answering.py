"""A server that gives prepared answers, for what a real one does not do."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

INFO = {"models": {"extreme_points": {"labels": {"lesion": 1, "cyst": 2}}}}


@contextmanager
def answering(answers):
    """Yields the address; `answers` has, for a path, a JSON object, or a status, a body and a file name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers.get(urlsplit(self.path).path, (404, b"no such path", ""))
            status, body, name = answer if isinstance(answer, tuple) else (200, json.dumps(answer).encode(), "")
            self.send_response(status)
            if name:
                self.send_header("Content-Disposition", f'attachment; filename="{name}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def datastore(**tags):
    """A list of images with the tags that each has."""
    return {"objects": {image: {"labels": {tag: {} for tag in names}} for image, names in tags.items()}}
