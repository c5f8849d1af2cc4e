"""The annotation page gets its own files and no others, and loads nothing from other hosts."""

from __future__ import annotations

import gzip
import re

import pytest
from starlette.middleware import Middleware
from starlette.routing import Route

from lib.server.http.request_gate import Gate
from lib.server.login.user import ANYBODY, Role, User
from lib.server.pages.annotation_page import AnnotationPage
from lib.server.pages.pages import Pages
from tests.server.http.serving import request, send, serving
from tests.server.pages.test_pages import OUTSIDE, SECRET

INDEX = b"<!doctype html><title>Annotate</title>" + b" " * 2000
SCRIPT = b"console.log('annotate')" * 100
FILES = {
    "index.html": INDEX,
    "main-ABCD1234.js": SCRIPT,
    "main.js": SCRIPT,
    "style-0QWERTY7.css": b"body {}",
    "icon.svg": b"<svg/>",
    "font.woff2": b"wOF2",
    "NOTICES.txt": b"BSD-2",
}


def routes(pages, user=ANYBODY):
    async def start(request):
        request.state.user = user
        return await pages.start(request)

    async def index(request):
        return await pages.annotate(request)

    async def file(request):
        return await pages.annotate_file(request, request.path_params["file"])

    return [Route("/", start), Route("/annotate", index), Route("/annotate/{file}", file)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a build, with foreign files in it and beside it."""
    root = tmp_path_factory.mktemp("web")
    folder = root / "dist"
    (folder / "folder").mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    for path in ("secret.txt", "dist/.hidden.js", "dist/folder/file.js", "dist/build.log", "dist/key.pem"):
        (root / path).write_bytes(SECRET)
    (folder / "link.txt").symlink_to(root / "secret.txt")
    return folder


@pytest.fixture(scope="module")
def port(folder):
    pages = Pages("InExtremIS", False, annotation_page=AnnotationPage(folder))
    with serving(routes(pages), [Middleware(Gate)]) as port:
        yield port


def test_start_leads_to_the_page(port):
    status, headers, _ = send(port, request("GET", "/"))

    assert (status, headers["location"]) == (302, "annotate")  # also below the path of a proxy


@pytest.mark.parametrize("name", FILES)
def test_files_of_the_build_are_served(port, name):
    status, headers, body = send(port, request("GET", f"/annotate/{name}"))

    assert (status, body) == (200, FILES[name])
    extension = name.rpartition(".")[2]
    expected = {"js": "javascript", "txt": "plain", "woff2": "font/woff2"}.get(extension, extension)
    assert expected in headers["content-type"] and headers["x-content-type-options"] == "nosniff"


def test_page_is_its_index(port):
    status, headers, body = send(port, request("GET", "/annotate"))

    assert (status, body) == (200, INDEX) and headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("name", ["", "/main-ABCD1234.js"])
def test_policy_names_no_other_host_and_allows_no_script_in_the_page(port, name):
    policy = send(port, request("GET", f"/annotate{name}"))[1]["content-security-policy"]

    rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
    assert not re.search(r"\*|https?:|[a-z0-9-]+\.[a-z]", policy)
    assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'" and rules["style-src"] == "'self'"
    assert rules["connect-src"] == "'self'" and rules["frame-ancestors"] == "'none'" and rules["base-uri"] == "'none'"
    assert "unsafe" not in policy


def test_file_with_a_hash_in_its_name_is_kept_and_others_are_asked_for(port):
    def kept(name):
        return send(port, request("GET", f"/annotate/{name}"))[1]["cache-control"]

    assert "immutable" in kept("main-ABCD1234.js") and "immutable" in kept("style-0QWERTY7.css")
    assert kept("main.js") == kept("index.html") == kept("icon.svg") == "no-cache"
    headers = send(port, request("GET", "/annotate"))[1]
    assert headers["cache-control"] == "no-cache"
    status, again, body = send(port, request("GET", "/annotate", If_None_Match=headers["etag"]))
    assert (status, body) == (304, b"")
    # The page that a browser has kept would get another policy, under which it is without scripts.
    assert again.get("content-security-policy") in (None, headers["content-security-policy"])


def test_file_is_compressed_if_the_client_accepts_gzip(port):
    status, headers, body = send(port, request("GET", "/annotate/main.js", Accept_Encoding="gzip, br"))

    assert (status, headers["content-encoding"], headers["vary"]) == (200, "gzip", "accept-encoding")
    assert gzip.decompress(body) == SCRIPT and len(body) < len(SCRIPT) / 5
    plain = send(port, request("GET", "/annotate/main.js"))[1]
    assert "content-encoding" not in plain and plain["etag"] != headers["etag"]
    assert "content-encoding" not in send(port, request("GET", "/annotate/font.woff2", Accept_Encoding="gzip"))[1]


def test_new_build_is_served_without_a_restart(port, folder):
    (folder / "main.js").write_bytes(b"new")
    try:
        assert send(port, request("GET", "/annotate/main.js"))[2] == b"new"
    finally:
        (folder / "main.js").write_bytes(SCRIPT)


BESIDE = [".hidden.js", "folder/file.js", "folder%2ffile.js", "build.log", "key.pem", "folder", "none.js", "INDEX.HTML"]


@pytest.mark.parametrize("path", [*OUTSIDE, *BESIDE])
def test_nothing_else_is_served_and_nothing_fails(port, path):
    status, _, body = send(port, request("GET", f"/annotate/{path}"))

    assert status in (400, 404) or (status == 307 and path.endswith("/"))  # to the same without the slash
    assert SECRET not in body and b"root:" not in body


def test_without_a_build_the_page_says_how_to_make_one_and_the_start_page_is_there(tmp_path):
    pages = Pages("InExtremIS", False, annotation_page=AnnotationPage(tmp_path / "none"))
    with serving(routes(pages), [Middleware(Gate)]) as port:
        status, _, body = send(port, request("GET", "/annotate"))
        assert status == 503 and b"scripts/environment.sh" in body
        assert send(port, request("GET", "/annotate/main.js"))[0] == 404
        assert send(port, request("GET", "/"))[0] == 200


@pytest.mark.parametrize(("role", "shown"), [(Role.ANNOTATOR, False), (Role.REVIEWER, True), (Role.ADMIN, True)])
def test_start_page_names_the_user_offers_the_logout_and_shows_readings_to_reviewers(tmp_path, role, shown):
    pages = Pages(
        "InExtremIS", False, asks_login=True, has_readings=True, annotation_page=AnnotationPage(tmp_path / "none")
    )
    with serving(routes(pages, User("rené <b>", role)), [Middleware(Gate)]) as port:
        page = send(port, request("GET", "/"))[2].decode()

    assert "Logged in as rené &lt;b&gt;" in page and 'action="logout"' in page
    assert ("readings</a>" in page) == shown
