"""The archive is reached through the server by what viewers need; nothing else reaches it, or comes back from it."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from lib.demo.local_server import free_port
from lib.server.archive.archive_proxy import ArchiveProxy
from lib.server.http.request_gate import Gate
from tests.server.archive.fake_archive import FOUND, FRAME, HTML, fake_archive
from tests.server.archive.stow_bodies import CT, END, SEG, STOW, instance, instances_in, part
from tests.server.http.serving import request, send, serving

NAME, PASSWORD = "radiologist", "kept-to-itself"
SERIES = "studies/1.2.3/series/1.2.4"
FRAMES = f"/proxy/dicom/wado/{SERIES}/instances/1.2.5/frames/1"


def routes(proxy):
    async def read(request):
        return await proxy.read(request, request.path_params["operation"], request.path_params["path"])

    async def store(request):
        return await proxy.store(request, request.path_params["path"])

    async def other(request):
        return PlainTextResponse("at once")

    return [
        Route("/proxy/dicom/{operation}/{path:path}", read, methods=["GET"]),
        Route("/proxy/dicom/stow/{path:path}", store, methods=["POST"]),
        Route("/other", other),
    ]


def proxying(url, **options):
    options = {"login": (NAME, PASSWORD), "read_timeout_s": 1.0, "max_bytes": 100_000, **options}
    return serving(routes(ArchiveProxy(url, **options)), [Middleware(Gate)])


@pytest.fixture(scope="module")
def running():
    with fake_archive() as archive, proxying(archive.url) as port:
        yield archive, port


@pytest.fixture
def archive(running):
    archive = running[0]
    archive.behaviour = "answers"
    archive.asked.clear()
    return archive


@pytest.fixture
def port(running):
    return running[1]


@pytest.fixture
def url(port):
    return f"http://127.0.0.1:{port}/proxy/dicom"


def sentence(answer):
    assert answer.headers["content-type"] == "application/json"
    assert PASSWORD not in answer.text and "Traceback" not in answer.text
    return answer.json()["detail"]


def test_search_passes_with_its_query_and_the_archives_login(archive, url):
    query = "limit=101&offset=0&includefield=00081030%2C00080060&PatientName=*M%C3%BCller*"

    answer = requests.get(f"{url}/qido/studies?{query}", timeout=10)

    assert (answer.status_code, answer.content) == (200, FOUND)
    (asked,) = archive.asked
    assert (asked.method, asked.path) == ("GET", f"/dicom-web/studies?{query}")
    assert asked.headers["authorization"] == requests.auth._basic_auth_str(NAME, PASSWORD)


def test_frames_pass_whole(archive, url):
    accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'

    answer = requests.get(f"{url}/wado/{SERIES}/instances/1.2.5/frames/1", headers={"Accept": accept}, timeout=10)

    assert answer.content == FRAME
    assert answer.headers["content-type"] == "multipart/related; boundary=x"
    assert archive.asked[0].headers["accept"] == accept


def test_metadata_that_is_searched_for_is_retrieved():
    prefixes = {"qido": "search", "wado": "/retrieve/", "stow": None}
    with fake_archive() as archive, proxying(archive.url, prefixes=prefixes) as port:
        for path in (f"qido/{SERIES}/metadata", "qido/studies"):
            requests.get(f"http://127.0.0.1:{port}/proxy/dicom/{path}", timeout=10).raise_for_status()

        assert [asked.path for asked in archive.asked] == [
            f"/dicom-web/retrieve/{SERIES}/metadata",
            "/dicom-web/search/studies",
        ]


@pytest.mark.parametrize(
    "path",
    [
        *("..%2ftools%2fbulk-delete", "..%2Ftools%2Fshutdown", "%2e%2e/tools/shutdown", "../tools/shutdown"),
        *("qido/..%2ftools%2fshutdown", "qido/../../tools/shutdown", "qido/%2e%2e/%2e%2e/tools/reset"),
        *("qido/..%5ctools", "qido/studies%2f..%2f..%2ftools", "qido/studies/1.2.3%3fx%3d/series"),
        *("qido/studies/1.2.3%23/series", "qido/studies%0d%0aX:%20y", "qido/%252e%252e/tools"),
        *("wado/instances/1.2.3/file", "wado//tools/shutdown", "wado/http://127.0.0.1:1/studies"),
        *("wado/studies/1.2.3/archive", "wado/studies/../metadata", "stow/studies", "tools/studies", "studies/"),
        "system/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"])
def test_nothing_else_of_the_archives_server_is_reached(archive, port, method, path):
    status = send(port, request(method, f"/proxy/dicom/{path}", Content_Length="0"))[0]

    assert status in (400, 404, 405, 415)
    assert not archive.asked


def test_only_some_headers_reach_the_archive(archive, port):
    headers = {
        "Authorization": "Bearer of-the-client",
        "Cookie": "session=1",
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "host=evil.example",
        "Proxy-Authorization": "Basic eA==",
        "X-Original-URL": "/tools/shutdown",
        "X-HTTP-Method-Override": "DELETE",
        "Referer": "http://127.0.0.1/",
        "Range": "bytes=0-9",
    }

    assert send(port, request("GET", FRAMES, **headers))[0] == 200

    (asked,) = archive.asked
    assert set(asked.headers) - {"host", "connection", "user-agent", "accept-encoding", "accept"} == {
        "authorization",
        "range",
    }
    assert asked.headers["host"] == f"127.0.0.1:{archive.port}"
    assert "of-the-client" not in asked.headers["authorization"]


def test_only_some_headers_of_the_archive_come_back(archive, url):
    for _ in range(2):
        answer = requests.get(f"{url}/qido/studies", timeout=10)

    assert answer.headers["etag"] == '"1"'
    assert "set-cookie" not in answer.headers and "x-internal" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert all("cookie" not in asked.headers for asked in archive.asked)


@pytest.mark.parametrize("behaviour", ["redirects", "redirects for good"])
def test_redirects_are_not_followed(archive, url, behaviour):
    archive.behaviour = behaviour

    answer = requests.get(f"{url}/qido/studies", timeout=10, allow_redirects=False)

    assert answer.status_code == 502
    assert "redirect" in sentence(answer) and "location" not in answer.headers
    assert len(archive.asked) == 1


@pytest.mark.parametrize("behaviour", ["sends html", "sends svg", "sends xhtml", "sends script", "sends no type"])
def test_nothing_that_the_archive_holds_runs_in_a_browser(archive, url, behaviour):
    archive.behaviour = behaviour

    answer = requests.get(f"{url}/wado/{SERIES}/instances/1.2.5/bulk/1", timeout=10)

    assert answer.content == HTML
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("behaviour", "status", "words"),
    [
        ("fails with html", 502, "500"),
        ("finds nothing", 404, "404"),
        ("asks for a login", 502, "MONAI_LABEL_DICOMWEB_USERNAME"),
        ("hangs", 504, "in time"),
        ("closes", 502, "check that it runs"),
    ],
)
def test_archive_that_does_not_serve_is_a_sentence(archive, url, behaviour, status, words):
    archive.behaviour = behaviour

    answer = requests.get(f"{url}/qido/studies", timeout=10)

    assert answer.status_code == status
    assert words in sentence(answer)
    assert "www-authenticate" not in answer.headers


def test_archive_that_is_away_is_a_sentence_without_its_login():
    with proxying(f"http://{NAME}:{PASSWORD}@127.0.0.1:{free_port()}/dicom-web", login=None) as port:
        answer = requests.get(f"http://127.0.0.1:{port}/proxy/dicom/qido/studies", timeout=10)

    assert answer.status_code == 502
    assert "check that it runs" in sentence(answer) and NAME not in answer.text


def test_login_in_the_address_is_used():
    with fake_archive() as archive:
        address = archive.url.replace("127.0.0.1", f"{NAME}:{PASSWORD}@127.0.0.1")
        with proxying(address, login=None) as port:
            requests.get(f"http://127.0.0.1:{port}/proxy/dicom/qido/studies", timeout=10).raise_for_status()

        assert archive.asked[0].headers["authorization"] == requests.auth._basic_auth_str(NAME, PASSWORD)


def test_answer_that_stops_in_the_middle_is_seen_as_cut(archive, url):
    archive.behaviour = "hangs in the middle"

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(f"{url}/qido/studies", timeout=10)


def test_compressed_answer_is_unpacked(archive, url):
    archive.behaviour = "compresses"

    assert requests.get(f"{url}/qido/studies", timeout=10).content == FOUND


@pytest.mark.parametrize("behaviour", ["hangs", "hangs in the middle"])
def test_archive_that_hangs_holds_up_nobody(archive, url, port, behaviour):
    archive.behaviour = behaviour
    with ThreadPoolExecutor(60) as clients:
        for _ in range(60):
            clients.submit(requests.get, f"{url}/qido/studies", timeout=10)
        time.sleep(0.3)
        for _ in range(5):
            start = time.monotonic()
            assert requests.get(f"http://127.0.0.1:{port}/other", timeout=10).text == "at once"
            assert time.monotonic() - start < 0.5


def test_proxy_of_the_environment_is_not_used_for_loopback(archive, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with proxying(archive.url) as port:
        answer = send(port, request("GET", "/proxy/dicom/qido/studies"))

    assert answer[0] == 200


def post(url, body, content_type=STOW, path="studies"):
    return requests.post(f"{url}/stow/{path}", data=body, headers={"Content-Type": content_type}, timeout=20)


def stored(asked):
    return instances_in(asked.headers["content-type"], asked.body)


@pytest.mark.parametrize("path", ["studies", "studies/1.2.3"])
def test_segmentations_are_stored(archive, url, path):
    files = [instance(), instance()]

    answer = post(url, b"".join(map(part, files)) + END, path=path)

    assert answer.status_code == 200
    (asked,) = archive.asked
    assert (asked.method, asked.path) == ("POST", f"/dicom-web/{path}")
    assert stored(asked) == files
    assert asked.headers["authorization"] == requests.auth._basic_auth_str(NAME, PASSWORD)


def test_client_of_the_export_stores_segmentations(archive, url):
    client = DICOMwebClient(url, qido_url_prefix="qido", wado_url_prefix="wado", stow_url_prefix="stow")

    client.store_instances([dcmread(io.BytesIO(instance()))])

    assert dcmread(io.BytesIO(stored(archive.asked[0])[0])).SOPClassUID == SEG


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (part(instance()) + part(instance(CT)) + END, STOW, 422),
        (part(HTML, "text/html") + END, STOW, 415),
        (part(instance()) + END, "application/dicom", 415),
        (b"", STOW, 400),
        (part(instance(PixelData=b"x" * 200_000)) + END, STOW, 413),
    ],
    ids=["image", "web page", "no multipart", "empty", "too much"],
)
def test_nothing_but_segmentations_is_stored(archive, url, body, content_type, status):
    answer = post(url, body, content_type)

    assert answer.status_code == status
    assert sentence(answer).endswith(".")
    assert not archive.asked


def test_failure_of_one_instance_is_told(archive, url):
    archive.behaviour = "finds nothing"

    assert "404" in sentence(post(url, part(instance()) + END))
