"""Sessions keep uploaded images for a limited time, and delete their files."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.server.http import upload_sessions as module
from lib.server.http.upload_sessions import Sessions


@pytest.fixture
def upload(tmp_path):
    numbers = iter(range(1000))

    def write():
        path = tmp_path / f"{next(numbers)}.nii.gz"
        path.write_bytes(b"volume")
        return path

    return write


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock by one that tests set."""

    class Clock:
        now = 1e9

        def time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_session_gives_its_file_until_it_is_removed(upload):
    sessions, path = Sessions(), upload()
    session = sessions.add(path)

    assert sessions.get(session.id).image == path
    sessions.remove(session.id)
    assert not path.exists()
    assert sessions.get(session.id) is None
    sessions.remove(session.id)


def test_ids_cannot_be_guessed(upload):
    sessions = Sessions()
    ids = {sessions.add(upload()).id for _ in range(20)}

    assert len(ids) == 20
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in ids)


def test_session_info_has_the_fields_of_monai_label(upload, clock):
    path = upload()

    info = Sessions().add(path, expiry_s=60).info()

    assert info.keys() == {"name", "image", "create_ts", "last_access_ts", "expiry"}
    assert (info["image"], info["expiry"], info["create_ts"]) == (path.name, 60, 10**9)
    assert "/" not in str(info)


def test_unused_session_ends_and_used_one_continues(upload, clock):
    sessions = Sessions(lifetime_s=100)
    used, unused = sessions.add(upload()), sessions.add(upload())
    for _ in range(3):
        clock.now += 60
        assert sessions.get(used.id) is not None

    assert sessions.get(unused.id) is None
    assert used.image.exists()
    assert not unused.image.exists()


@pytest.mark.parametrize(("expiry_s", "lifetime_s"), [(0, 100), (-5, 100), (10, 10), (99, 99), (10**9, 100)])
def test_lifetime_is_the_requested_one_up_to_the_longest(upload, clock, expiry_s, lifetime_s):
    sessions = Sessions(lifetime_s=100)
    session = sessions.add(upload(), expiry_s)

    clock.now += lifetime_s
    assert sessions.get(session.id) is not None
    clock.now += lifetime_s + 1
    assert sessions.get(session.id) is None


def test_session_ends_if_the_clock_is_set_back(upload, clock):
    sessions = Sessions(lifetime_s=100)
    session = sessions.add(upload())
    clock.now -= 3600

    assert sessions.get(session.id) is None
    assert not session.image.exists()


def test_least_recently_used_session_ends_if_there_are_too_many(upload, clock):
    sessions = Sessions(max_sessions=3)
    first, *others = [sessions.add(upload()) for _ in range(3)]
    for session in (*others, first):
        clock.now += 1
        sessions.get(session.id)

    sessions.add(upload())

    assert sessions.get(others[0].id) is None
    assert not others[0].image.exists()
    assert sessions.get(first.id) and sessions.get(others[1].id)


def test_session_whose_file_is_gone_is_removed(upload):
    sessions, path = Sessions(), upload()
    session = sessions.add(path)
    path.unlink()

    sessions.remove(session.id)

    assert sessions.get(session.id) is None


def test_many_clients_at_once(upload):
    sessions, paths = Sessions(max_sessions=10), [upload() for _ in range(60)]
    start = threading.Barrier(6)

    def use(number):
        start.wait()
        for path in paths[number::6]:
            session = sessions.add(path)
            sessions.get(session.id)
            time.sleep(0.001)

    with ThreadPoolExecutor(6) as clients:
        list(clients.map(use, range(6)))

    assert sum(path.exists() for path in paths) == 10
