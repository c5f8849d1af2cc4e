"""Changes are sent to all connected browsers, at most once a second, until the server shuts down."""

import asyncio
import itertools
import json
import queue
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest
import requests

from lib.server.events import MAX_LISTENERS, Events
from tests.server.asking import infer
from tests.server.conftest import running_site
from tests.server.http.serving import connect, request
from tests.server.waiting import wait_for


class Looks:
    """Function that returns one prepared change after the other."""

    def __init__(self, *looks):
        self.looks, self.count = iter(looks), 0

    def __call__(self):
        self.count += 1
        return next(self.looks, {})


async def allowed():
    return True


def heard(events, seconds=0.6, is_allowed=allowed):
    """Return the text that one browser receives."""

    async def listen():
        return b"".join([piece async for piece in events.stream(is_allowed, seconds)]).decode()

    return asyncio.run(listen())


def parsed(text):
    """Return the kinds and contents of events, without comments."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block and not block.startswith(":")]
    return [(lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))) for lines in blocks]


def test_hello_comes_first_and_names_this_process():
    events, other = Events(dict), Events(dict)

    assert heard(events, 0) == heard(events, 0) == f'event: hello\ndata: {{"server": "{events.id}"}}\n\n'
    assert events.id != other.id


def test_changes_are_sent_in_order():
    looks = Looks({}, {"studies": {"ids": ["a"]}}, {"training": {"epoch": 1}, "model": {"version": 2}})

    assert parsed(heard(Events(looks, look_s=0.05), 0.8))[1:] == [
        ("studies", {"ids": ["a"]}),
        ("training", {"epoch": 1}),
        ("model", {"version": 2}),
    ]


def test_all_browsers_share_one_look():
    looks = Looks()
    events = Events(looks, look_s=0.2)

    async def listen():
        async def one():
            async for _ in events.stream(allowed, 0.7):
                pass

        await asyncio.gather(*[one() for _ in range(20)])

    asyncio.run(listen())

    assert 2 <= looks.count <= 5


def test_look_is_called_only_while_somebody_listens():
    looks = Looks({}, {"model": {"version": 1}}, {}, {"model": {"version": 2}})
    events = Events(looks, look_s=0.05)

    async def listen_twice():
        first = b"".join([piece async for piece in events.stream(allowed, 0.35)])
        await asyncio.sleep(0.3)
        before = looks.count
        await asyncio.sleep(0.4)
        assert looks.count == before
        return first, b"".join([piece async for piece in events.stream(allowed, 0.8)])

    first, second = (parsed(text.decode()) for text in asyncio.run(listen_twice()))
    assert ("model", {"version": 1}) in first and ("model", {"version": 2}) in second


def test_slow_browser_gets_the_newest_event_of_each_kind_and_all_studies():
    looks = Looks({}, *({"training": {"epoch": n}, "studies": {"ids": [f"{n}", "a"]}} for n in range(5)))

    async def listen_slowly():
        stream = Events(looks, look_s=0.05).stream(allowed, 3)
        sent = [await anext(stream)]
        await asyncio.sleep(1.6)  # takes nothing
        sent += [await anext(stream), await anext(stream)]
        await stream.aclose()
        return b"".join(sent).decode()

    assert dict(parsed(asyncio.run(listen_slowly()))[1:]) == {
        "training": {"epoch": 4},
        "studies": {"ids": ["0", "1", "2", "3", "4", "a"]},
    }


def test_comments_keep_the_connection_alive():
    assert heard(Events(dict, keep_alive_s=0.1), 0.55).count(": still here") in (3, 4, 5)


def test_events_end_with_the_login():
    answers = iter([True, False])

    async def is_allowed():
        return next(answers)

    begin = time.monotonic()
    text = heard(Events(dict, keep_alive_s=0.1), 10, is_allowed)

    assert text.count(": still here") == 1 and time.monotonic() - begin < 2


def test_events_end_with_the_server_although_the_look_waits():
    slow = threading.Event()
    events = Events(lambda: slow.wait(3) and {}, is_ending := threading.Event().is_set)
    ending = is_ending.__self__

    async def listen():
        async for _ in events.stream(allowed, 10):
            asyncio.get_running_loop().call_later(0.2, ending.set)
        return time.monotonic()

    begin = time.monotonic()
    try:
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(listen()) - begin < 1
    finally:
        slow.set()


def test_look_that_fails_is_logged_and_repeated(caplog):
    def looks():
        yield {}
        yield RuntimeError("the disk is away")
        yield {"model": {"version": 2}}
        yield from itertools.repeat({})

    left = looks()

    def look():
        found = next(left)
        if isinstance(found, Exception):
            raise found
        return found

    assert ("model", {"version": 2}) in parsed(heard(Events(look, look_s=0.05), 0.9))
    assert "the disk is away" in caplog.text


class Listening:
    """Browser that listens in the background."""

    def __init__(self, site):
        self.events = queue.Queue()
        self._client = connect(site.server.port)
        self._client.settimeout(None)
        self._client.sendall(request("GET", "/events"))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        with self._client.makefile(encoding="utf-8") as lines:
            for line in lines:  # until the connection is closed, by whichever side
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ").strip()
                elif line.startswith("data: "):
                    self.events.put((kind, json.loads(line.removeprefix("data: "))))

    def next(self, kind, timeout_s=10):
        end = time.monotonic() + timeout_s
        while True:
            found, content = self.events.get(timeout=max(0.01, end - time.monotonic()))
            if found == kind:
                return content

    def close(self):
        with suppress(OSError):  # closed by the server
            self._client.shutdown(socket.SHUT_RDWR)
        self._client.close()


@pytest.fixture
def listening(own_site):
    browsers = [Listening(own_site), Listening(own_site)]
    for browser in browsers:
        browser.next("hello")
    time.sleep(0.5)  # the first look
    yield browsers
    for browser in browsers:
        browser.close()


def click_at(site, study):
    assert infer(site, study, {"lesion": site.clicks(study), "client_id": "anna"}).ok


def test_events_are_sent_as_browsers_expect_them(own_site):
    answer = requests.get(f"{own_site.url}/events", params={"seconds": 0}, timeout=10)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store" and answer.headers["x-accel-buffering"] == "no"
    assert parsed(answer.text)[0][0] == "hello"


def test_clicks_are_sent_to_all_browsers(own_site, listening):
    click_at(own_site, "study_00")

    assert [browser.next("studies") for browser in listening] == [{"ids": ["study_00"]}] * 2


def test_training_is_sent_until_the_model_is_published(own_site, listening):
    click_at(own_site, "study_01")
    assert requests.post(f"{own_site.url}/train/inextremis", json={}, timeout=60).ok

    begun = listening[0].next("training")
    assert begun["running"] and begun["progress"] == 0 and "loss" not in begun
    assert listening[0].next("model", 120) == {"version": 1}
    while (last := listening[1].next("training", 120))["running"]:
        pass
    assert (last["progress"], last["error"]) == (1.0, None) and last["sentence"].startswith("Its score on")


@pytest.mark.parametrize("seconds", ["-1", "soon", "nan"])
def test_invalid_time_is_refused(own_site, seconds):
    assert requests.get(f"{own_site.url}/events", params={"seconds": seconds}, timeout=10).status_code == 422


def test_too_many_browsers_are_refused_until_some_disconnect(own_site):
    clients = [connect(own_site.server.port) for _ in range(MAX_LISTENERS)]
    try:
        for client in clients:
            client.sendall(request("GET", "/events"))
            assert b" 200 " in client.recv(200)
        answer = requests.get(f"{own_site.url}/events", timeout=10)
        assert answer.status_code == 503 and "listen to the server already" in answer.json()["detail"]
        assert requests.get(f"{own_site.url}/health", timeout=10).ok
    finally:
        for client in clients:
            client.shutdown(socket.SHUT_RDWR)
            client.close()
    wait_for(lambda: requests.get(f"{own_site.url}/events?seconds=0", timeout=10).status_code != 503)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_server_ends_at_once_although_browsers_listen(tmp_path, end):
    with running_site(tmp_path, 1) as site:
        browsers = [Listening(site) for _ in range(5)]
        stuck = connect(site.server.port)  # reads nothing
        stuck.sendall(request("GET", "/events"))
        for browser in browsers:
            browser.next("hello")
        begin = time.monotonic()
        site.server.process.send_signal(end)

        assert site.server.process.wait(3) == -signal.SIGTERM
        assert time.monotonic() - begin < 1
        for browser in browsers:
            browser.close()
        stuck.close()
        assert "Traceback" not in (tmp_path / "server.log").read_text()
