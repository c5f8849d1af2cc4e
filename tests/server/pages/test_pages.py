"""Browsers get the viewer's files and no others, and load nothing from other hosts."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.middleware import Middleware
from starlette.routing import Route

from lib.server.archive.archive_proxy import ArchiveProxy
from lib.server.http.request_gate import Gate
from lib.server.pages.annotation_page import AnnotationPage
from lib.server.pages.pages import STATIC, Pages
from tests.installed import need_chromium
from tests.server.archive.fake_archive import fake_archive
from tests.server.http.serving import request, send, serving
from tests.viewer.ohif import browser_page

INDEX = (STATIC / "ohif" / "index.html").read_text()
SECRET = b"not for browsers"
NOT_BUILT = AnnotationPage(Path("/nonexistent"))


def routes(pages):
    async def ohif(request):
        return await pages.ohif(request, request.path_params["path"])

    async def favicon(request):
        return await pages.favicon()

    return [Route("/", pages.start), Route("/favicon.ico", favicon), Route("/ohif/{path:path}", ohif)]


@pytest.fixture(scope="module")
def port():
    with serving(routes(Pages("InExtremIS", has_archive=True, annotation_page=NOT_BUILT)), [Middleware(Gate)]) as port:
        yield port


@pytest.fixture(scope="module")
def port_of_copy(tmp_path_factory):
    """Serve a small viewer folder with files beside it and a link that leads out of it."""
    root = tmp_path_factory.mktemp("static")
    (root / "ohif" / "folder").mkdir(parents=True)
    (root / "ohif" / "index.html").write_bytes(b"<title>viewer</title>")
    (root / "ohif-private").mkdir()
    for name in ("secret.txt", "ohif-private/secret.txt", "ohif/folder/file.txt"):
        (root / name).write_bytes(SECRET if "secret" in name else b"file")
    (root / "ohif" / "link.txt").symlink_to(root / "secret.txt")
    with serving(routes(Pages("InExtremIS", True, root, annotation_page=NOT_BUILT)), [Middleware(Gate)]) as port:
        yield port


@pytest.mark.parametrize(
    "path", ["app-config.js", "3933.css", "assets/favicon.ico", "assets/images/CT-Bone.png", "sw.js"]
)
def test_files_of_the_viewer_are_served(port, path):
    status, headers, body = send(port, request("GET", f"/ohif/{path}"))

    assert status == 200
    assert body == (STATIC / "ohif" / path).read_bytes()
    assert "html" not in headers["content-type"]


@pytest.mark.parametrize("path", ["", "index.html", "viewer?StudyInstanceUIDs=1.2", "monai-label", "viewer/dicomweb"])
def test_routes_of_the_viewer_are_its_page(port, path):
    status, headers, body = send(port, request("GET", f"/ohif/{path}"))

    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert Elements(body.decode()).tags == Elements(INDEX).tags
    assert "<title>OHIF Viewer</title>" in body.decode()


@pytest.mark.parametrize("path", ["", "app.bundle.css"])
def test_viewer_is_served_without_the_fonts_of_another_host(port, path):
    """The browser would look for these hosts, even where the policy lets it load nothing from them."""
    original = (STATIC / "ohif" / (path or "index.html")).read_text()

    served = send(port, request("GET", f"/ohif/{path}"))[2].decode()

    assert "fonts.googleapis.com" in original
    assert not re.search(r"(<link|@import)[^>;]*https?:", served)
    assert len(original) - 400 < len(served) < len(original)


@pytest.mark.parametrize("path", ["app-config.js", "app.bundle.css", "viewer"])
def test_file_that_is_unchanged_is_not_sent_again(port, path):
    headers = send(port, request("GET", f"/ohif/{path}"))[1]

    assert headers["cache-control"] == "no-cache"
    status, _, body = send(port, request("GET", f"/ohif/{path}", If_None_Match=headers["etag"]))
    assert (status, body) == (304, b"")


@pytest.mark.parametrize(("path", "address"), [("", "../annotate"), ("viewer/x?a=1", "../../annotate")])
def test_viewer_without_an_archive_links_to_the_annotation_page(path, address):
    with serving(routes(Pages("Liver <b>&</b> spleen", False)), [Middleware(Gate)]) as port:
        status, headers, body = send(port, request("GET", f"/ohif/{path}"))

    elements = Elements(body.decode())
    assert (status, elements.addresses) == (404, [address])
    assert not elements.tags & {"script", "link", "img", "iframe", "form", "b"}
    assert "OHIF shows those of a DICOMweb archive only" in body.decode()
    assert "default-src 'none'" in headers["content-security-policy"]


OUTSIDE = [
    *("..", "../", "../secret.txt", "%2e%2e", "%2e%2e/", "%2e%2e/secret.txt", "..%2fsecret.txt"),
    *("%2e%2e%2fsecret.txt", "..%5csecret.txt", "....//secret.txt", "folder/../../secret.txt"),
    *("folder/%2e%2e/%2e%2e/secret.txt", "../ohif-private/secret.txt", "link.txt", "/etc/passwd", "%2fetc%2fpasswd"),
    *("//etc/passwd", "..:secret.txt", "%00", "secret.txt%00.html", "%c0%ae%c0%ae/secret.txt", "missing.js"),
    *("folder/missing.css", "x" * 300 + ".js", "a/" * 500 + "b.js", "%F0%9F%A6%84"),
]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_outside_of_the_folder_is_served_and_nothing_fails(port_of_copy, method, path):
    status, _, body = send(port_of_copy, request(method, f"/ohif/{path}"))

    assert status in (400, 404)
    assert SECRET not in body and b"root:" not in body


@pytest.mark.parametrize("path", ["folder", "folder/", ".", "%2e", "folder/.", "x" * 300])
def test_folders_are_not_listed(port_of_copy, path):
    status, _, body = send(port_of_copy, request("GET", f"/ohif/{path}"))

    assert status == 404 or body == b"<title>viewer</title>"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_pages_are_only_read(port, method):
    assert send(port, request(method, "/ohif/", Content_Length="0"))[0] == 405


def test_favicon_is_served(port):
    assert send(port, request("GET", "/favicon.ico"))[2] == (STATIC / "favicon.ico").read_bytes()


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("href", "src", "action", "data")]


@pytest.mark.parametrize(("has_archive", "addresses"), [(True, ["./ohif/"]), (False, [])])
def test_start_page_links_to_the_viewer_and_loads_nothing(has_archive, addresses):
    with serving(
        routes(Pages("Liver <b>&</b> spleen", has_archive, annotation_page=NOT_BUILT)), [Middleware(Gate)]
    ) as port:
        status, headers, body = send(port, request("GET", "/", Host="localhost:8000"))

    elements = Elements(body.decode())
    assert (status, elements.addresses) == (200, addresses)
    assert not elements.tags & {"script", "link", "img", "iframe", "form", "b"}
    assert "http://localhost:8000/" in body.decode()
    assert "script-src" not in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path", ["", "viewer", "app-config.js", "sw.js", "histogram-worker.bundle.118d553b53a573660111.js"]
)
def test_policy_of_the_viewer_names_no_other_host(port, path):
    policy = send(port, request("GET", f"/ohif/{path}"))[1]["content-security-policy"]

    assert not re.search(r"\*|https?:|[a-z0-9-]+\.[a-z]", policy)
    assert "'unsafe-inline'" not in re.search("script-src[^;]*", policy)[0]
    assert "frame-ancestors 'none'" in policy


def test_policy_allows_just_the_scripts_in_the_page(port):
    policy = send(port, request("GET", "/ohif/"))[1]["content-security-policy"]

    assert policy.count("'sha256-") == INDEX.count("<script>") == 2
    assert hashlib.sha256(b"alert(1)").hexdigest() not in policy


def test_viewer_works_in_a_browser_and_asks_no_other_host():
    need_chromium()
    with fake_archive() as archive:
        proxy = ArchiveProxy(archive.url)

        async def read(request):
            return await proxy.read(request, request.path_params["operation"], request.path_params["path"])

        passed_on = Route("/proxy/dicom/{operation}/{path:path}", read)
        with (
            serving(
                [*routes(Pages("InExtremIS", True, annotation_page=NOT_BUILT)), passed_on], [Middleware(Gate)]
            ) as port,
            browser_page() as page,
        ):
            answered = []
            page.on("response", lambda response: answered.append(urlsplit(response.url).netloc))
            page.goto(f"http://127.0.0.1:{port}/")
            page.get_by_role("link").click()
            page.get_by_text("Study List").first.wait_for()
            page.evaluate(
                "const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s)"
            )
            ran = page.evaluate("window.ran")

    assert archive.asked[0].path.startswith("/dicom-web/studies?")
    assert set(answered) == {f"127.0.0.1:{port}"}
    assert ran is None
