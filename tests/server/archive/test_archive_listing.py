"""The list of an archive's series: told at once, whatever the archive does."""

import contextlib
import logging
import threading
import time

import pytest

from lib.server.archive import archive_listing
from lib.server.archive.archive import Series
from lib.server.archive.archive_errors import ArchiveError
from lib.server.archive.archive_listing import PATIENCE_S, ArchiveListing
from tests.full_disk import no_space
from tests.server.waiting import wait_for

A_LITTLE_S = 0.4
ONE, TWO = (Series(uid, {"Modality": "MR", "PatientID": "Müller"}, count) for uid, count in (("1.2", 8), ("1.3", None)))


class Archive:
    """Answers with `series`, or fails with `error`, after `hangs`."""

    def __init__(self, *series):
        self.series, self.error = series, None
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked = 0

    def ask(self):
        self.asked += 1
        self.go_on.wait(20)
        if self.error is not None:
            raise self.error
        return {one.uid: one for one in self.series}


@pytest.fixture
def archive():
    archive = Archive(ONE, TWO)
    yield archive
    archive.go_on.set()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "listing.json"


@pytest.fixture
def listing(archive, path):
    return ArchiveListing(archive.ask, path)


@pytest.fixture
def expired(monkeypatch):
    """Let lists expire at once."""
    monkeypatch.setattr(archive_listing, "EXPIRES_S", 0.0)


def seconds(function, *arguments):
    begin = time.monotonic()
    with contextlib.suppress(ArchiveError):
        function(*arguments)
    return time.monotonic() - begin


def at_once(function, count=10):
    """Call a function in several threads."""
    threads = [threading.Thread(target=function) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_list_is_that_of_the_archive_which_is_asked_once_for_many_who_ask(listing, archive):
    at_once(listing.series)

    assert listing.series() == {"1.2": ONE, "1.3": TWO}
    assert listing.is_fresh and listing.problem is None
    assert archive.asked == 1


@pytest.mark.parametrize("later", [(ONE, TWO), ()])
def test_series_appear_and_go_when_the_list_has_expired(listing, archive, expired, later):
    archive.series = (ONE,)
    assert set(listing.series()) == {"1.2"}
    archive.series = later

    wait_for(lambda: set(listing.series()) == {one.uid for one in later})


# The archive hangs


def test_nobody_waits_longer_than_patience_for_an_archive_that_has_never_answered(listing, archive):
    archive.go_on.clear()

    waited = [seconds(listing.series) for _ in range(3)]

    assert max(waited) < PATIENCE_S + A_LITTLE_S
    assert sum(waited) < PATIENCE_S + 2 * A_LITTLE_S, "patience is that of the question, and not of each who asks"
    with pytest.raises(ArchiveError, match="has not answered yet; try again in a moment"):
        listing.series()


def test_nobody_waits_longer_than_patience_where_a_list_is_known(listing, archive, expired):
    listing.series()
    archive.go_on.clear()
    waited = []

    at_once(lambda: waited.append(seconds(listing.series)))

    assert len(waited) == 10
    assert max(waited) < PATIENCE_S + A_LITTLE_S
    assert set(listing.series()) == {"1.2", "1.3"}


def test_archive_that_hangs_is_asked_by_one_thread_only(listing, archive, expired):
    archive.go_on.clear()
    for _ in range(3):
        seconds(listing.series)

    assert archive.asked == 1


def test_list_comes_when_the_archive_goes_on(listing, archive):
    archive.go_on.clear()
    seconds(listing.series)
    archive.go_on.set()

    def answered():
        try:
            return set(listing.series()) == {"1.2", "1.3"}
        except ArchiveError:
            return False

    wait_for(answered)


# The archive fails


def test_without_any_list_the_reason_is_told(listing, archive):
    archive.error = ArchiveError("The archive refuses the login; start the server with another.")

    for _ in range(2):
        with pytest.raises(ArchiveError, match="^The archive refuses the login; start the server with another.$"):
            listing.series()
    assert not listing.is_fresh


def test_failure_keeps_the_last_list_and_is_told_beside_it(listing, archive, expired):
    listing.series()
    archive.error = ArchiveError("The archive is away.")

    wait_for(lambda: listing.series() and listing.problem == "The archive is away.")
    assert set(listing.series()) == {"1.2", "1.3"}
    assert not listing.is_fresh

    archive.error = None
    wait_for(lambda: listing.series() and listing.problem is None)
    assert listing.is_fresh


def test_who_has_a_list_does_not_wait_for_an_archive_that_failed_before(listing, archive, expired):
    listing.series()
    archive.error = ArchiveError("The archive is away.")
    wait_for(lambda: listing.series() and listing.problem)
    archive.go_on.clear()

    assert seconds(listing.series) < A_LITTLE_S


def test_failure_is_logged_once_however_long_it_lasts(listing, archive, expired, caplog):
    listing.series()
    archive.error = ArchiveError("The archive is away.")
    asked = archive.asked
    with caplog.at_level(logging.WARNING):
        wait_for(lambda: listing.series() and archive.asked > asked + 3)

    assert caplog.text.count("The archive is away.") == 1


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("/a/path"), TypeError("None")])
def test_unforeseen_failure_is_a_sentence_too(listing, archive, error):
    archive.error = error

    with pytest.raises(ArchiveError, match="^The DICOMweb archive does not answer as it should; check that it runs.$"):
        listing.series()


# Restarts


def test_list_outlives_a_restart_while_the_archive_is_away(listing, archive, path):
    listing.series()
    archive.error = ArchiveError("The archive is away.")
    again = ArchiveListing(archive.ask, path)

    assert again.series() == {"1.2": ONE, "1.3": TWO}
    wait_for(lambda: again.problem == "The archive is away.")
    assert again.series() == {"1.2": ONE, "1.3": TWO}
    assert not again.is_fresh


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b'{"1.2": 7}', b'{"1.2": {}}', b'{"1.2": {"facts": 7}}', b"\xff", b"[" * 100_000],
)
def test_damaged_list_of_before_is_as_none(archive, path, content):
    path.parent.mkdir()
    path.write_bytes(content)

    assert set(ArchiveListing(archive.ask, path).series()) == {"1.2", "1.3"}
    assert set(ArchiveListing(archive.ask, path).series()) == {"1.2", "1.3"}


def test_full_disk_keeps_the_list_from_nobody(listing, path, monkeypatch, caplog):
    monkeypatch.setattr("os.fsync", no_space)

    assert set(listing.series()) == {"1.2", "1.3"}
    wait_for(lambda: "could not be saved (No space left on device)" in caplog.text)
