"""A small DICOMweb archive on loopback, which breaks off, hangs, counts and answers as archives in the field do."""

import base64
import io
import json
import re
import ssl
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from lib.demo.dicom import dicom_series
from tests.server.studies.images import AFFINE, SHAPE

PIXEL_DATA = "7FE00010"
BOUNDARY = "of-the-parts"


def instances(patient, modality="MR", shape=SHAPE):
    pixels = np.random.default_rng(abs(hash(patient)) % 2**32).integers(0, 1000, shape, dtype=np.int16)
    return dicom_series(pixels, AFFINE, patient, modality=modality)


class FakeDICOMweb:
    """Series by UID, and how they are told.

    Attributes:
        page: most results of one answer; None for all.
        offset: "kept", "ignored", or "refused" by a 400.
        counts: does it tell the number of instances of a series?
        breaks_after: instances after which the connection of a fetch is lost.
        hang_s: seconds for which such a connection says nothing before it is lost.
        cut_in: "chunks", "length" or "closing": by what the end of an answer is known.
        accepts: transfer syntaxes that may be asked for; None for any.
        answer: for each search, in place of the usual one: (status, headers, body).
        login: name and password that it asks for.
        odd: elements that it gives in DICOM JSON in the headers of every instance.
        tells: tags of the attributes of a series that a search tells.
        before: called with the path of each request, before it is answered.
        asked: path and query of each request, in order.
    """

    def __init__(self):
        self.series, self.more = {}, []
        self.page, self.offset, self.counts = None, "kept", True
        self.breaks_after, self.hang_s, self.cut_in, self.accepts = None, 0.0, "chunks", None
        self.answer, self.login = None, None
        self.odd, self.before = {}, lambda path: None
        self.tells = ["0020000D", "0020000E", "00080060", "00100020", "00080020", "00080030"]
        self.asked, self.stored = [], []

    def add(self, patient, modality="MR", shape=SHAPE):
        """Add a series and return its UID."""
        made = instances(patient, modality, shape)
        uid = str(made[0].SeriesInstanceUID)
        self.series[uid] = made
        return uid

    def asked_for(self, pattern):
        return [path for path, _ in self.asked if re.search(pattern, path)]

    def fetches(self):
        return [path.rsplit("/", 1)[1] for path in self.asked_for(r"^/dicom-web/studies/[^/]+/series/[^/]+$")]

    def searches(self):
        return [query for path, query in self.asked if path == "/dicom-web/series"]

    def found(self, query):
        wanted = {name: query[name][0] for name in ("Modality", "SeriesInstanceUID", "PatientID") if name in query}
        matching = [
            self._told(made)
            for made in self.series.values()
            if all(str(made[0].get(name)) == value for name, value in wanted.items())
        ]
        matching += [] if "SeriesInstanceUID" in wanted else self.more
        offset = int(query.get("offset", ["0"])[0]) if self.offset == "kept" else 0
        limit = min(int(query.get("limit", [str(len(matching))])[0]), self.page or len(matching))
        return matching[offset : offset + limit]

    def _told(self, made):
        told = {tag: value for tag, value in made[0].to_json_dict().items() if tag in self.tells}
        if self.counts:
            told["00201209"] = {"vr": "IS", "Value": [len(made)]}
        return told


def encoded(instance):
    file = io.BytesIO()
    instance.save_as(file, write_like_original=False)
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def archive(self):
        return self.server.archive

    def do_GET(self):  # noqa: N802
        if self.server.is_closed:  # but for connections that were kept open
            self.close_connection = True
            return None
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        self.archive.asked.append((parts.path, query))
        self.archive.before(parts.path)
        if self.archive.login and self.headers.get("Authorization") != self._expected():
            return self.send(401, b"who are you?", "text/plain")
        if parts.path == "/dicom-web/series":
            return self._search(query)
        match = re.fullmatch(r"/dicom-web/studies/([0-9.]+)/series/([0-9.]+)(/.*)?", parts.path)
        made = self.archive.series.get(match[2]) if match else None
        if made is None or str(made[0].StudyInstanceUID) != match[1]:
            return self.send(404, b"not here", "text/plain")
        if match[3] == "/metadata":
            headers = [{t: v for t, v in one.to_json_dict().items() if t != PIXEL_DATA} for one in made]
            headers = [header | self.archive.odd for header in headers]
            return self.send(200, json.dumps(headers).encode(), "application/dicom+json")
        if match[3]:
            return self._frame(made, match[3])
        return self._fetch(made)

    def do_POST(self):  # noqa: N802
        self.archive.stored.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.archive.asked.append((urlsplit(self.path).path, {}))
        self.send(200, b"{}", "application/dicom+json")

    def _expected(self):
        return "Basic " + base64.b64encode(":".join(self.archive.login).encode()).decode()

    def _search(self, query):
        if self.archive.answer is not None:
            status, headers, body = self.archive.answer
            return self.send(status, body, **headers)
        if "offset" in query and self.archive.offset == "refused":
            return self.send(400, b"unknown parameter offset", "text/plain")
        found = self.archive.found(query)
        if not found:
            return self.send(204)
        return self.send(200, json.dumps(found).encode(), "application/dicom+json")

    def _fetch(self, made):
        syntax = re.search(r"transfer-syntax=\"?([0-9.*]+)", self.headers.get("Accept", ""))
        asked = syntax[1] if syntax else str(ExplicitVRLittleEndian)
        if self.archive.accepts is not None and asked not in self.archive.accepts:
            return self.send(406, b"not acceptable", "text/plain")
        parts = [
            f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + encoded(one) + b"\r\n" for one in made
        ]
        self._send_parts([*parts, f"--{BOUNDARY}--".encode()], self.archive.breaks_after)

    def _frame(self, made, rest):
        uid = rest.split("/")[2]
        number = next(n for n, one in enumerate(made) if str(one.SOPInstanceUID) == uid)
        if self.archive.breaks_after is not None and number >= self.archive.breaks_after:
            self.close_connection = True
            return None
        head = f"--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        return self._send_parts([head + made[number].PixelData + f"\r\n--{BOUNDARY}--".encode()], None)

    def _send_parts(self, parts, breaks_after):
        self.send_response(200)
        self.send_header("Content-Type", f'multipart/related; type="application/dicom"; boundary={BOUNDARY}')
        how = self.archive.cut_in
        if how == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
        elif how == "length":
            self.send_header("Content-Length", str(sum(map(len, parts))))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        for number, part in enumerate(parts):
            if breaks_after is not None and number >= breaks_after:
                self.wfile.flush()
                time.sleep(self.archive.hang_s)
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if how == "chunks" else part)
        if how == "chunks":
            self.wfile.write(b"0\r\n\r\n")

    def send(self, status, body=b"", content_type="text/plain", **headers):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    is_closed = False

    def handle_error(self, *arguments):
        pass  # the client went away


def two_series():
    """Return an archive with the series `one` and `two`."""
    archive = FakeDICOMweb()
    archive.add("one")
    archive.add("two")
    return archive


@contextmanager
def served(archive, port=0, certificate=None):
    """Serve an archive at the address that is given."""
    server = Server(("127.0.0.1", port), Handler)
    server.archive = archive
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}/dicom-web"
    finally:
        server.is_closed = True
        server.shutdown()
        server.server_close()
