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
"""Age at which the list is refreshed; a new series of the archive appears after this time at the latest."""
PATIENCE_S = 0.8
"""Longest time that a request waits for a newer list."""


class ArchiveListing:
    """Latest list of the archive's series, refreshed in the background.

    Args:
        ask: requests the list from the archive.
        path: JSON file that keeps the latest list between starts.
        on_gone: called with the UIDs that have disappeared from the list.

    Attributes:
        expires_s: age at which the list is refreshed; None means `EXPIRES_S`.
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
        """Sentence that says why the last refresh failed; None if it succeeded."""

    def series(self) -> dict[str, Series]:
        """Return the series by UID.

        Raises:
            ArchiveError: no list is known, and the archive does not send one.
        """
        expires_s = EXPIRES_S if self.expires_s is None else self.expires_s
        with self._lock:
            if self._refresh is None and time.monotonic() - self._asked > expires_s:
                self._asked = time.monotonic()
                self._refresh = threading.Thread(target=self._renew, name="archive-listing", daemon=True)
                self._refresh.start()
            refresh, started = self._refresh, self._asked
        # If a list is known, do not wait for an archive that failed or hangs.
        if refresh is not None and (self._known is None or self.problem is None):
            refresh.join(max(0.0, started + PATIENCE_S - time.monotonic()))
        if self._known is None:
            raise ArchiveError(self.problem or "The DICOMweb archive has not answered yet; try again in a moment.")
        return self._known

    def wait(self, timeout_s: float) -> None:
        """Wait for the first list.

        Raises:
            ArchiveError: the archive does not send one in time.
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
        """Whether the last refresh succeeded."""
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
        except Exception:  # without a recorded problem, requests would wait for this thread
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
            logger.warning("The list of the archive's series could not be saved (%s).", error.strerror)


def known_series(path: Path) -> dict[str, Series] | None:
    """Read the saved list of an archive's series, by UID; None if it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
        return {uid: Series(uid, dict(one["facts"]), one["instances"]) for uid, one in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
