"""A server that gives prepared answers, for what a real one does not do."""

import datetime
import ipaddress
import json
import socket
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LABELS = ("lesion", "cyst")
INFO = {"models": {"extreme_points": {"labels": {"lesion": 1, "cyst": 2}}}}


@contextmanager
def answering(answers, host="127.0.0.1", certificate=None):
    """Yields the address.

    Args:
        answers: for a path with its query, or a path whatever its query is, what JSON can say, or a status, a body and
            a file name.
        certificate: file of a certificate and its key, for https.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers.get(self.path, answers.get(urlsplit(self.path).path, (404, b"no such path", "")))
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

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    server = Server((host, 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def datastore(**tags):
    """A list of images with the tags that each has, which answer all labels."""
    return {"objects": {image: listed(**dict.fromkeys(names, LABELS)) for image, names in tags.items()}}


def listed(**labels):
    """An image in such a list, with the labels that the annotations of each tag are about."""
    answered = {label for tag in ("extreme_points", "final") for label in labels.get(tag, ())}
    return {
        "labels": {tag: {"info": {"labels": list(of_tag)}} for tag, of_tag in labels.items()},
        "unanswered": [label for label in LABELS if label not in answered],
    }


def self_signed_certificate(path, host="127.0.0.1"):
    """Writes a certificate for a host that no authority has signed, and its key, into one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
