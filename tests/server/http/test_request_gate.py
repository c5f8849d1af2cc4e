"""The gate passes requests of the server's own pages and of programs, and refuses those of other pages."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import suppress

import pytest
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from lib.server.http.request_body import BodyLimits
from lib.server.http.request_gate import Gate
from tests.server.http.serving import answer_of, connect, request, send, serving

LIMITS = BodyLimits(text_bytes=1000, upload_bytes=5000, stall_s=0.5, slow_s=1.5, bytes_per_s=100)
REACHED = []


async def echo(request: Request):
    REACHED.append(request.url.path)
    return JSONResponse({"bytes": len(await request.body())})


async def fail(request: Request):
    raise RuntimeError("the secret path /home/somebody")


async def own_policy(request: Request):
    return PlainTextResponse("page", headers={"Content-Security-Policy": "default-src 'self'"})


ROUTES = [
    Route("/fail", fail),
    Route("/own-policy", own_policy),
    Route("/{path:path}", echo, methods=["GET", "POST", "PUT", "DELETE"]),
]


@pytest.fixture(scope="module")
def port():
    gate = Middleware(Gate, hosts=["viewer.hospital.example"], origins=["https://ohif.example"], limits=LIMITS)
    with serving(ROUTES, [gate]) as port:
        yield port


@pytest.fixture(autouse=True)
def forget_reached():
    REACHED.clear()


def refused(answer, status):
    """Check that an answer is a refusal by one sentence and reached no route; return the sentence."""
    found, headers, body = answer
    assert found == status, body
    assert headers["content-type"] == "application/json"
    sentence = json.loads(body)["detail"]
    assert sentence.endswith(".") and "\n" not in sentence
    assert not REACHED
    return sentence


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.0.0.1:8000", "10.1.2.3:8000", "[::1]"),
        *("[fe80::1]:8000", socket.gethostname(), "viewer.hospital.example", "Viewer.Hospital.example:443"),
    ],
)
def test_own_names_and_addresses_are_served(port, host):
    assert send(port, request(Host=host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("viewer.hospital.example.evil.example", "evil.example@127.0.0.1", "127.0.0.1:80@evil.example"),
        *("127.0.0.1/evil.example", "localhost:8000:9000", "[::1].evil.example", "[evil]", "2130706433", "0x7f.1"),
        "",
    ],
)
def test_names_that_a_stranger_may_own_are_refused(port, host):
    assert "allowed_hosts" in refused(send(port, request(Host=host)), 421)


def test_request_without_a_host_or_with_two_is_refused(port):
    assert "allowed_hosts" in refused(send(port, b"GET / HTTP/1.0\r\n\r\n"), 400)
    assert send(port, request(Host=["localhost", "evil.example"]))[0] == 400
    assert not REACHED


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://ohif.example", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_programs_own_pages_and_allowed_origins_are_served(port, method, headers):
    assert send(port, request(method, Host="127.0.0.1:8000", **headers))[0] == 200


def test_default_port_is_left_out_of_an_origin(port):
    assert send(port, request(Host="localhost:80", Origin="http://localhost"))[0] == 200


FOREIGN_ORIGINS = [
    *("http://evil.example", "null", "", "http://127.0.0.1", "https://127.0.0.1:8000", "http://localhost:8000"),
    *("http://127.0.0.1:8000.evil.example", "https://sub.ohif.example", "http://ohif.example"),
    ["http://127.0.0.1:8000", "http://evil.example"],
]
FOREIGN = [
    *({"Origin": origin} for origin in FOREIGN_ORIGINS),
    *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "something-new")),
    {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_others_are_refused(port, method, headers):
    answer = send(port, request(method, "/info/", Host="127.0.0.1:8000", **headers))
    if method == "HEAD":
        assert (answer[0], answer[2], REACHED) == (403, b"", [])
    else:
        assert "allowed_origins" in refused(answer, 403)
    assert "access-control-allow-origin" not in answer[1]


NAVIGATION = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("path", ["/", "/annotate", "/ohif", "/ohif/", "/ohif/viewer?StudyInstanceUIDs=1.2"])
def test_links_on_other_pages_open_the_servers_pages(port, path):
    assert send(port, request("GET", path, **NAVIGATION))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "changed"),
    [
        ("GET", "/info/", {}),
        ("GET", "/datastore/image?image=case01", {}),
        ("GET", "/ohif-not", {}),
        ("POST", "/ohif/", {}),
        ("GET", "/ohif/", {"Sec-Fetch-Dest": "iframe"}),
        ("GET", "/ohif/", {"Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"}),
    ],
)
def test_other_pages_open_nothing_else(port, method, path, changed):
    refused(send(port, request(method, path, **{**NAVIGATION, **changed})), 403)


def test_allowed_origin_gets_cors_without_credentials(port):
    preflight = {"Origin": "https://ohif.example", "Access-Control-Request-Method": "PUT"}
    for head in (request("OPTIONS", "/infer", **preflight), request("GET", "/info/", Origin="https://ohif.example")):
        status, headers, _ = send(port, head)
        assert status == 200
        assert headers["access-control-allow-origin"] == "https://ohif.example"
        assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("path", ["/info/", "/fail", "/evil%00"])
def test_every_answer_carries_the_headers_that_protect_browsers(port, path):
    headers = send(port, request("GET", path))[1]

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "deny"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert not [name for name in headers if name.startswith("access-control-")]


def test_policy_of_a_page_is_kept(port):
    assert send(port, request("GET", "/own-policy"))[1]["content-security-policy"] == "default-src 'self'"


@pytest.mark.parametrize(
    "path",
    [
        *("/%ff", "/a%c3", "/%ed%a0%80", "/%00", "/a%0d%0aSet-Cookie:x", "/%7f", "/%zz", "/%2", "/?image=%ff"),
        *("/?image=a%00b", "/?image=a%0aINFO%20forged", "http://evil.example/info/", "*"),
    ],
)
def test_invalid_paths_and_queries_are_refused(port, path):
    refused(send(port, request("GET", path)), 400)


@pytest.mark.parametrize("path", ["/M%C3%BCller", "/?image=M%C3%BCller+x", "/?filter=50%", "/a%20b%2Fc"])
def test_paths_and_queries_of_text_are_served(port, path):
    assert send(port, request("GET", path))[0] == 200


def test_headers_that_are_no_utf8_are_refused(port):
    refused(send(port, request("GET", "/", X_Name="M\xfcller")), 400)


@pytest.mark.parametrize(
    ("path", "content_type", "size", "status"),
    [
        ("/train/", "application/json", 1000, 200),
        ("/train/", "application/json", 1001, 413),
        ("/train/", "application/x-www-form-urlencoded", 1001, 413),
        ("/train/", "multipart/form-data; boundary=x", 1001, 413),
        ("/datastore/image", "multipart/form-data; boundary=x", 5000, 200),
        ("/datastore/image", "multipart/form-data; boundary=x", 5001, 413),
        ("/datastore/image", "application/json; multipart/form-data", 1001, 413),
        ("/datastore/image", ["application/json", "multipart/form-data; boundary=x"], 1001, 413),
        ("/infer/x", None, 1001, 413),
    ],
)
@pytest.mark.parametrize("way", ["with a length", "chunked"])
def test_bodies_have_a_largest_size(port, path, content_type, size, status, way):
    headers, body = {"Content-Length": size}, b"x" * size
    if way == "chunked":
        headers, body = {"Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)

    found, _, answer = send(port, request("POST", path, Content_Type=content_type, **headers), body)

    assert found == status
    assert json.loads(answer) == {"bytes": size} if status == 200 else "expected no more than" in str(answer)


def test_announced_size_is_refused_before_a_byte_is_sent(port):
    refused(send(port, request("POST", "/", Content_Length=10**15), timeout_s=2), 413)
    waiting = request("POST", "/", Content_Length=10**9, Expect="100-continue", Connection="keep-alive")
    status, headers, _ = send(port, waiting, timeout_s=2)
    assert (status, headers["connection"]) == (413, "close")


@pytest.mark.parametrize("sent", [b"", b"half"])
def test_body_that_stops_is_refused(port, sent):
    start = time.monotonic()

    answer = send(port, request("POST", "/", Content_Length=100, Connection="keep-alive"), sent)

    assert 0.4 < time.monotonic() - start < 1.5
    assert answer[1]["connection"] == "close"
    assert answer[0] == 408 and "send it again" in json.loads(answer[2])["detail"]


def test_slow_body_is_refused(port):
    def send_slowly(client):
        with suppress(OSError):  # the server closes the connection
            for _ in range(30):
                client.sendall(b"x")
                time.sleep(0.1)

    start = time.monotonic()
    with connect(port) as client:
        client.sendall(request("POST", "/", Content_Length=1000))
        threading.Thread(target=send_slowly, args=(client,), daemon=True).start()
        status = answer_of(client)[0]

    assert status == 408
    assert 1.4 < time.monotonic() - start < 3


def test_body_that_comes_slowly_but_steadily_is_served(port):
    with connect(port) as client:
        client.sendall(request("POST", "/", Content_Length=1000))
        for _ in range(10):
            client.sendall(b"x" * 100)
            time.sleep(0.2)
        assert answer_of(client)[0] == 200


def test_failure_of_the_application_is_a_sentence_and_the_connection_stays_open(port):
    with connect(port) as client:
        client.sendall(request("GET", "/fail", Connection="keep-alive"))
        client.sendall(request("GET", "/after"))
        failed, after = answer_of(client)[2].split(b"HTTP/1.1 200 OK")

    assert b"its log says why" in failed and b"secret" not in failed and b"Traceback" not in failed
    assert REACHED == ["/after"] and after


def test_websockets_are_closed():
    sent, messages = [], [{"type": "websocket.connect"}]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    async def never(*arguments):
        raise AssertionError("reached")

    asyncio.run(Gate(never)({"type": "websocket"}, receive, send))

    assert [message["type"] for message in sent] == ["websocket.close"]
