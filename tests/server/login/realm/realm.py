"""Run a realm of OpenID Connect on loopback, with known keys, so that tests can forge its tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import subprocess
import time
from html import unescape
from pathlib import Path

import jwt
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lib.demo.local_server import free_port
from tests.installed import OIDC_PROVIDER

CLIENT = "monailabel-app"
PASSWORD = "of the realm"


class Key:
    """RSA key with an id."""

    def __init__(self, key_id):
        self.id = key_id
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def public_pem(self):
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form)

    @property
    def jwk(self):
        made = jwt.algorithms.RSAAlgorithm.to_jwk(self.private, as_dict=True)
        return {"kid": self.id, "use": "sig", "alg": "RS256", **{k: v for k, v in made.items() if k != "key_ops"}}


class Realm:
    """Process of npm's oidc-provider.

    Attributes:
        key: Signing key; a change takes effect at the next start.
        users: Users and their roles, with the realm's names.
    """

    def __init__(self, callback, users):
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.callback, self.users, self.key = callback, users, Key("first")
        self._process = None

    def start(self):
        settings = {"keys": [self.key.jwk], "users": self.users, "password": PASSWORD, "packages": str(OIDC_PROVIDER)}
        command = ["node", str(Path(__file__).parent / "server.mjs"), str(self.port), self.callback]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._process.stdin.write(json.dumps(settings))
        self._process.stdin.close()
        assert self._process.stdout.readline() == "listening\n"

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def claims(self, name="anna", **changed):
        """Return the claims of a valid access token; None removes a claim."""
        now = int(time.time())
        claims = {
            "iss": self.address,
            "aud": "account",
            "azp": CLIENT,
            "sub": name,
            "iat": now,
            "exp": now + 300,
            "preferred_username": name,
            "realm_access": {"roles": self.users.get(name, [])},
        }
        return {key: value for key, value in {**claims, **changed}.items() if value is not None}

    def token(self, name="anna", key=None, **changed):
        """Return a token, signed as the realm does."""
        key = key or self.key
        return jwt.encode(self.claims(name, **changed), key.private, "RS256", {"kid": key.id})

    def token_signed_with_public_key(self):
        """Return a token signed by HS256 with the public key, which libraries refuse to do."""
        signed = f"{_part({'alg': 'HS256', 'typ': 'JWT', 'kid': self.key.id})}.{_part(self.claims())}"
        signature = hmac.new(self.key.public_pem, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _part(content):
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def log_in_at_realm(address, name):
    """Log in on the realm's pages, and return the address to which they redirect the browser."""
    browser, realm = requests.Session(), address.partition("/auth")[0]
    answer = browser.get(address, timeout=30)
    for _ in range(2):  # name and password, then consent
        form = dict(re.findall(r'name="(\w+)" value="([^"]*)"', answer.text))
        action = unescape(re.search(r'action="([^"]+)"', answer.text)[1])
        answer = browser.post(action, data={**form, "login": name, "password": "x"}, timeout=30, allow_redirects=False)
        while answer.status_code in (302, 303):
            target = answer.headers["location"]
            if not target.startswith((realm, "/")):
                return target
            answer = browser.get(requests.compat.urljoin(realm, target), timeout=30, allow_redirects=False)
    raise AssertionError(answer.text)
