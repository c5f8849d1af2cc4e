"""Keep the list of an archive's series and refresh it in the background."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lib.annotations.atomic_write import write_atomically
from lib.server.archive.archive import Series
from lib.server.archive.archive_errors import NO_ANSWER, ArchiveError

logger = logging.getLogger(__name__)

EXPIRES_S = 5.0
"""A viewer asks for the list at every turn; a series that has just been sent to the archive appears after this time."""
PATIENCE_S = 0.8
"""A request waits no longer than this for a newer list than the one that is known."""


class ArchiveListing:
    """The series that the archive told of last, refreshed in the background.

    Args:
        ask: asks the archive.
        path: JSON file that keeps the last answer between starts.
        on_gone: called with the UIDs that were in the list and are no more.

    Attributes:
        expires_s: after which the archive is asked again; None takes `EXPIRES_S`.
    """

    def __init__(
        self,
        ask: Callable[[], dict[str, Series]],
        path: Path,
        on_gone: Callable[[Iterable[str]], None] = lambda uids: None,
    ) -> None:
        self._ask = ask
        self._on_gone = on_gone
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, Series] | None = known_series(path)
        self.expires_s: float | None = None
        self._asked = -math.inf
        self._refresh: threading.Thread | None = None
        self.problem: str | None = None
        """Why the last question failed, a sentence; None where it did not."""

    def series(self) -> dict[str, Series]:
        """The series by UID.

        Raises:
            ArchiveError: no list is known, and the archive gives none.
        """
        expires_s = EXPIRES_S if self.expires_s is None else self.expires_s
        with self._lock:
            if self._refresh is None and time.monotonic() - self._asked > expires_s:
                self._asked = time.monotonic()
                self._refresh = threading.Thread(target=self._renew, name="archive-listing", daemon=True)
                self._refresh.start()
            refresh, started = self._refresh, self._asked
        # A question that failed, or hangs, is not waited for by those who have a list.
        if refresh is not None and (self._known is None or self.problem is None):
            refresh.join(max(0.0, started + PATIENCE_S - time.monotonic()))
        if self._known is None:
            raise ArchiveError(self.problem or "The DICOMweb archive has not answered yet; try again in a moment.")
        return self._known

    def wait(self, timeout_s: float) -> None:
        """Waits for the first list, however long the archive takes for it.

        Raises:
            ArchiveError: the archive does not give one.
        """
        end = time.monotonic() + timeout_s
        while True:
            try:
                self.series()
                return
            except ArchiveError:
                if self.problem is not None or time.monotonic() > end:
                    raise

    @property
    def is_fresh(self) -> bool:
        """Did the archive answer the last question?"""
        return self.problem is None and self._known is not None

    def _renew(self) -> None:
        try:
            series = self._ask()
            if series != self._known:
                self._on_gone((self._known or {}).keys() - series.keys())
                self._keep(series)
            self._known, self.problem = series, None
        except ArchiveError as error:
            if self.problem is None:
                logger.error("%s The last list of its series is used.", error)
            self.problem = str(error)
        except Exception:  # whatever it is: without a problem, requests would wait for this thread's answer
            logger.exception("The series of the archive could not be listed.")
            self.problem = f"The DICOMweb archive {NO_ANSWER}"
        finally:
            with self._lock:
                self._asked, self._refresh = time.monotonic(), None

    def _keep(self, series: dict[str, Series]) -> None:
        content = {uid: {"facts": dict(one.facts), "instances": one.instances} for uid, one in series.items()}
        try:
            write_atomically(self._path, json.dumps(content).encode())
        except OSError as error:
            logger.warning("The list of the archive's series is not kept on disk (%s).", error.strerror)


def known_series(path: Path) -> dict[str, Series] | None:
    """What an archive told last, by UID, from the file that keeps it; None where that is not there."""
    try:
        content = json.loads(path.read_bytes())
        return {uid: Series(uid, dict(one["facts"]), one["instances"]) for uid, one in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
