"""Server-sent events: what changes is told to all who listen, once a second at most, until the server ends."""

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
from fastapi import HTTPException

from lib.server.changes import Changes
from lib.server.events import MAX_LISTENERS, Events
from lib.server.studies.open_studies import open_studies
from tests.server.asking import infer
from tests.server.conftest import running_site
from tests.server.http.serving import connect, request
from tests.server.studies.images import LABELS, click, submit, write_image
from tests.server.waiting import wait_for


class Looks:
    """What there is to be seen, one look after the other."""

    def __init__(self, *looks):
        self.looks, self.count = iter(looks), 0

    def __call__(self):
        self.count += 1
        return next(self.looks, {})


async def allowed():
    return True


def heard(events, seconds=0.6, is_allowed=allowed):
    """What one browser is sent."""

    async def listen():
        return b"".join([piece async for piece in events.stream(is_allowed, seconds)]).decode()

    return asyncio.run(listen())


def parsed(text):
    """Kinds and contents of events; comments are left out."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block and not block.startswith(":")]
    return [(lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))) for lines in blocks]


def test_hello_comes_first_and_names_this_process():
    events, other = Events(dict), Events(dict)

    assert heard(events, 0) == heard(events, 0) == f'event: hello\ndata: {{"server": "{events.id}"}}\n\n'
    assert events.id != other.id


def test_what_changes_is_told_in_order():
    looks = Looks({}, {"studies": {"ids": ["a"]}}, {"training": {"epoch": 1}, "model": {"version": 2}})

    assert parsed(heard(Events(looks, look_s=0.05), 0.8))[1:] == [
        ("studies", {"ids": ["a"]}),
        ("training", {"epoch": 1}),
        ("model", {"version": 2}),
    ]


def test_there_is_one_look_for_all_who_listen():
    looks = Looks()
    events = Events(looks, look_s=0.2)

    async def listen():
        async def one():
            async for _ in events.stream(allowed, 0.7):
                pass

        await asyncio.gather(*[one() for _ in range(20)])

    asyncio.run(listen())

    assert 2 <= looks.count <= 5


def test_nobody_looks_while_nobody_listens():
    looks = Looks()
    events = Events(looks, look_s=0.05)

    async def listen_and_wait():
        async for _ in events.stream(allowed, 0.2):
            pass
        await asyncio.sleep(0.3)
        before = looks.count
        await asyncio.sleep(0.4)
        return before

    assert asyncio.run(listen_and_wait()) == looks.count


def test_looks_go_on_when_somebody_listens_again():
    looks = Looks({}, {"model": {"version": 1}}, {}, {"model": {"version": 2}})
    events = Events(looks, look_s=0.05)

    async def twice():
        first = b"".join([piece async for piece in events.stream(allowed, 0.35)])
        await asyncio.sleep(0.4)
        return first, b"".join([piece async for piece in events.stream(allowed, 0.8)])

    first, second = (parsed(text.decode()) for text in asyncio.run(twice()))
    assert ("model", {"version": 1}) in first and ("model", {"version": 2}) in second


def test_of_a_slow_reader_only_the_newest_waits_and_no_study_is_lost():
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


def test_each_kind_comes_once_in_the_time_between_two_looks():
    looks = Looks({}, *({"training": {"epoch": n}} for n in range(100)))

    told = [kind for kind, _ in parsed(heard(Events(looks, look_s=0.4), 1.5))]

    assert 1 <= told.count("training") <= 4


def test_line_of_comment_keeps_the_connection_alive():
    assert heard(Events(dict, keep_alive_s=0.1), 0.55).count(": still here") in (3, 4, 5)


def test_events_end_with_the_login():
    answers = iter([True, False])

    async def is_allowed():
        return next(answers)

    begin = time.monotonic()
    text = heard(Events(dict, keep_alive_s=0.1), 10, is_allowed)

    assert text.count(": still here") == 1 and time.monotonic() - begin < 2


def test_events_end_at_once_with_the_server_whatever_the_look_waits_for():
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


def test_look_that_fails_is_named_in_the_log_and_the_next_goes_on(caplog):
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


def test_browser_that_goes_away_is_forgotten_and_too_many_are_refused():
    events = Events(dict)

    async def crowd():
        streams = [events.stream(allowed) for _ in range(MAX_LISTENERS)]
        for stream in streams:
            await anext(stream)
        with pytest.raises(HTTPException) as error:
            events.require_room()
        await streams[0].aclose()
        events.require_room()
        for stream in streams:
            await stream.aclose()
        return error.value

    refusal = asyncio.run(crowd())
    assert refusal.status_code == 503 and f"{MAX_LISTENERS} pages" in refusal.detail
    assert events._listeners == set()


# What is seen.


@pytest.fixture
def studies(tmp_path):
    for patient, name in enumerate(("a.nii.gz", "b.nii.gz")):
        write_image(tmp_path / "studies" / name, patient)
    return open_studies(str(tmp_path / "studies"), LABELS, None)


@pytest.fixture
def changes(studies):
    changes = Changes(studies, lambda: {"running": False, "remaining_s": None}, lambda: None)
    assert changes.look() == {}
    return changes


CHANGES = {
    "clicks": lambda studies, folder: click(studies, "a", "tumour"),
    "mask": lambda studies, folder: submit(studies, "a"),
    "skip": lambda studies, folder: studies.skips.skip("a", "", "anna"),
    "lease": lambda studies, folder: studies.leases.renew("a", "anna"),
    "deletion": lambda studies, folder: studies.remove_image("a"),
    "another server": lambda studies, folder: click(open_studies(str(folder), LABELS, None), "a", "cyst"),
    "file that is gone": lambda studies, folder: (folder / "a.nii.gz").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_study_that_changes_is_named_once_and_no_other(studies, changes, tmp_path, change):
    change(studies, tmp_path / "studies")

    assert changes.look() == {"studies": {"ids": ["a"]}}
    assert changes.look() == {}


def test_new_image_is_named(changes, tmp_path):
    write_image(tmp_path / "studies" / "c.nii.gz", 5)

    assert changes.look() == {"studies": {"ids": ["c"]}}


def test_answer_that_is_given_again_is_named_again(studies, changes):
    click(studies, "a", "tumour")
    changes.look()
    click(studies, "a", "tumour")

    assert changes.look() == {"studies": {"ids": ["a"]}}


def test_reading_of_one_reader_is_not_told_to_others(tmp_path):
    write_image(tmp_path / "studies" / "a.nii.gz")
    studies = open_studies(str(tmp_path / "studies"), LABELS, None, readers=2)
    changes = Changes(studies, dict, lambda: None)
    changes.look()
    reading = studies.readings.of("anna")
    reading.image_path = studies.image_path

    click(reading, "a", "tumour")

    assert changes.look() == {}


def test_training_and_model_are_told_as_they_change(studies):
    training, model = {"running": False, "remaining_s": 5}, None
    changes = Changes(studies, lambda: training, lambda: model)
    changes.look()
    training = {"running": False, "remaining_s": 4}
    assert changes.look() == {}
    training, model = {"running": True, "remaining_s": 3}, {"version": 1, "published": "now"}
    assert changes.look() == {"training": training, "model": {"version": 1}}
    model = None
    assert changes.look() == {"model": {"version": None}}


# Of a running server.


class Listening:
    """A browser that listens in the background."""

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


def test_clicks_of_one_are_told_to_all(own_site, listening):
    click_at(own_site, "study_00")

    assert [browser.next("studies") for browser in listening] == [{"ids": ["study_00"]}] * 2


def test_training_is_told_until_the_model_is_there(own_site, listening):
    click_at(own_site, "study_01")
    assert requests.post(f"{own_site.url}/train/inextremis", json={}, timeout=60).ok

    begun = listening[0].next("training")
    assert begun["running"] and begun["progress"] == 0 and "loss" not in begun
    assert listening[0].next("model", 120) == {"version": 1}
    while (told := listening[1].next("training", 120))["running"]:
        pass
    assert (told["progress"], told["error"]) == (1.0, None) and told["sentence"].startswith("Its score on")


@pytest.mark.parametrize("seconds", ["-1", "soon", "nan"])
def test_time_that_is_none_is_refused(own_site, seconds):
    assert requests.get(f"{own_site.url}/events", params={"seconds": seconds}, timeout=10).status_code == 422


def test_more_than_the_server_keeps_are_refused(own_site):
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
def test_server_ends_at_once_though_browsers_listen(tmp_path, end):
    with running_site(tmp_path, 1) as site:
        browsers = [Listening(site) for _ in range(5)]
        stuck = connect(site.server.port)  # takes nothing of what it is sent
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
