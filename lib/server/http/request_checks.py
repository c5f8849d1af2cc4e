"""Check the head of a request: its syntax, its Host and the origin of the page that sends it."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from lib.server.http.refusals import RefusedError, shown

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?P<port>:[0-9]{0,5})?")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_CUT_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# The callback is included: a realm redirects browsers to it.
_PAGES = ("/", "/annotate", "/ohif", "/login", "/login/callback", "/login/done", "/review")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def check_syntax(scope: Scope) -> None:
    """Raise RefusedError 400 if the path, the query or a header is not UTF-8, or holds control characters."""
    path = scope.get("raw_path") or scope["path"].encode()
    if not path.startswith(b"/") or _CUT_ESCAPE.search(path):
        raise RefusedError(400, f"The path {shown(path)} is not valid; expected one such as /info/, percent-encoded.")
    _check_text(unquote_to_bytes(path), "path", path)
    _check_text(unquote_to_bytes(scope["query_string"].replace(b"+", b" ")), "query", scope["query_string"])
    for name, value in scope["headers"]:
        _check_text(value.replace(b"\t", b" "), f"header {shown(name)}", value)


def _check_text(text: bytes, what: str, sent: bytes) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"The {what} is {shown(sent)}; expected text in UTF-8.") from error
    if _CONTROL.search(text):
        raise RefusedError(
            400, f"The {what} is {shown(sent)}; expected no line breaks and no other control characters."
        )


class HostCheck:
    """Accept requests whose Host is an IP address or one of the server's names, against DNS rebinding.

    A web page can make its own domain resolve to this machine; the browser then treats the server as same-origin. This
    is impossible with an IP address or with a name that the page's owner does not control.

    Args:
        names: Names of the server besides localhost and the machine's name; a name with a port accepts only that port.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        machine = socket.gethostname().lower()
        self._names = {"localhost", machine, machine.partition(".")[0], *(name.lower() for name in names)}
        # The full name requires a DNS look-up, which may take seconds.
        threading.Thread(target=lambda: self._names.add(socket.getfqdn().lower()), daemon=True).start()

    def __call__(self, scope: Scope) -> None:
        """Raise RefusedError 400 for no Host or several ones, 421 for a Host that is not a name of this server."""
        hosts = header_values(scope, b"host")
        if len(hosts) != 1:
            raise RefusedError(
                400, f"The request has {len(hosts)} Host headers; expected one that is in allowed_hosts."
            )
        if not self._is_own(hosts[0].lower()):
            raise RefusedError(
                421,
                f"The Host is {shown(hosts[0])}, which is no name of this server; use its address, or add the name "
                "with --conf allowed_hosts NAME.",
            )

    def _is_own(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].strip("[]").removesuffix(".")
        return name in self._names or host in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class OriginCheck:
    """Accept requests of programs, of the server's own pages and of allowed origins.

    Args:
        origins: Allowed origins, such as https://viewer.hospital.example.
    """

    def __init__(self, origins: Collection[str] = ()) -> None:
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def __call__(self, scope: Scope) -> None:
        """Raise RefusedError 403 if a page of another origin sends the request."""
        origins = header_values(scope, b"origin")
        if origins:
            if not set(origins) <= {*self._origins, _own_origin(scope)}:
                raise _foreign_page(f"The Origin is {shown(', '.join(origins))}")
            return
        sites = header_values(scope, b"sec-fetch-site")
        if not set(sites) <= {"same-origin", "none"} and not _opens_page(scope):
            raise _foreign_page(f"The Sec-Fetch-Site is {shown(', '.join(sites))}")


def _foreign_page(found: str) -> RefusedError:
    return RefusedError(
        403,
        f"{found}: a page of another server sends this request; open the server's own pages, or allow the other "
        "with --conf allowed_origins https://NAME.",
    )


def _own_origin(scope: Scope) -> str:
    host = header_values(scope, b"host")[0].lower()
    return f"{scope['scheme']}://{host.removesuffix(_DEFAULT_PORTS.get(scope['scheme'], ''))}"


def _opens_page(scope: Scope) -> bool:
    """Tell whether the browser follows a link of another site to a page of this server."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return (
        scope["method"] == "GET"
        and header_values(scope, b"sec-fetch-mode") == ["navigate"]
        and header_values(scope, b"sec-fetch-dest") == ["document"]
        and (path in _PAGES or path.startswith(("/ohif/", "/review/")))
    )


def header_values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]
