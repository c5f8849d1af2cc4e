"""An archive that accepts connections and answers nothing, or is not there: nobody waits for it but who needs it."""

import signal
import threading
import time
from contextlib import suppress

import pytest
import requests

from lib.demo.dicom import upload
from lib.server.archive.archive_listing import EXPIRES_S
from tests.physical import series
from tests.server.archive.archive_server import CLICKS
from tests.server.asking import datastore, infer
from tests.server.waiting import wait_for

WAIT_S = 1.5  # a second, and what a busy machine takes for the answer itself


@pytest.fixture(scope="module")
def uids(archive):
    return [upload(archive.orthanc.dicomweb_url, series(plane, "ascending")) for plane in ("axial", "coronal")]


@pytest.fixture(scope="module")
def server(archive, uids):
    with archive.server() as server:
        assert infer(server, uids[0], {"lesion": CLICKS}).ok
        yield server


@pytest.fixture(scope="module")
def unopened(archive, server):
    """Upload a series late, so that no request of an earlier test has fetched it."""
    uid = upload(archive.orthanc.dicomweb_url, series("sagittal", "ascending"))
    wait_for(lambda: uid in datastore(server, output="all")["objects"])
    return uid


@pytest.fixture
def hanging(archive):
    archive.orthanc.process.send_signal(signal.SIGSTOP)
    yield
    archive.orthanc.process.send_signal(signal.SIGCONT)


def unless_the_server_ends(ask):
    with suppress(requests.RequestException):
        ask()


def timed(ask):
    start = time.monotonic()
    answer = ask()
    return answer, time.monotonic() - start


def test_nobody_waits_for_an_archive_that_hangs(archive, server, uids, hanging):
    def need_the_archive():
        asking = [
            lambda: infer(server, uids[1], {"lesion": CLICKS}),
            lambda: requests.post(f"{server.url}/activelearning/first", json={}, timeout=120),
            lambda: requests.get(f"{server.url}/datastore/image", params={"image": uids[1]}, timeout=120),
            lambda: requests.get(f"{server.url}/proxy/dicom/qido/studies", timeout=120),
        ]
        return [threading.Thread(target=unless_the_server_ends, args=(ask,), daemon=True) for ask in asking * 12]

    time.sleep(EXPIRES_S)  # the list is asked for anew
    waiting = need_the_archive()
    for thread in waiting:
        thread.start()

    slowest = 0.0
    for _ in range(5):
        for path in ("/info/", "/datastore/", "/datastore/?output=all", "/train/", "/session/none"):
            slowest = max(slowest, timed(lambda path=path: requests.get(server.url + path, timeout=60))[1])
        answer, took = timed(lambda: infer(server, uids[0], {"lesion": CLICKS}))
        assert answer.status_code == 200
        assert took < 5
        time.sleep(1)

    assert sum(thread.is_alive() for thread in waiting) > 20
    assert slowest < WAIT_S
    archive.orthanc.process.send_signal(signal.SIGCONT)
    for thread in waiting:
        thread.join(60)


def test_what_needs_a_hanging_archive_is_answered_with_a_sentence(server, unopened, hanging):
    answer, took = timed(lambda: infer(server, unopened, {"lesion": CLICKS}))

    assert answer.status_code == 502
    assert "did not answer in time" in answer.json()["detail"]
    assert took < 90


def test_server_that_starts_without_its_archive_serves_what_it_has_fetched(archive, server, uids, unopened):
    server.stop()
    archive.orthanc.stop()

    with archive.server("alone") as alone:
        assert infer(alone, uids[0], {"lesion": CLICKS}).status_code == 200
        refused = infer(alone, unopened, {"lesion": CLICKS})
        assert refused.status_code == 502
        assert "does not answer" in refused.json()["detail"]
        assert "does not answer" in requests.get(f"{alone.url}/info/", timeout=30).json()["datastore"]["problem"]
