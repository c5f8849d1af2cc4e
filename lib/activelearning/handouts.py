"""Which studies are with an annotator just now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

LEASE_S = 30 * 60.0
"""An annotator needs a minute or so for a study; who has not clicked after half an hour does something else."""


class Handouts:
    """Lends each study to one annotator at a time.

    The studies note what was offered, for the time after a restart, but only after the choice; so offers are kept here
    too, from the moment of the choice.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, lease_s: float = LEASE_S, now: Callable[[], float] = time.time) -> None:
        self.lease_s = lease_s
        self._now = now
        self._given: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(
        self,
        image_ids: Sequence[str],
        noted: Mapping[str, float],
        order: Callable[[list[str], Mapping[str, float]], list[str]],
    ) -> str:
        """Chooses a study and lends it, both in one step.

        Args:
            image_ids: at least one. Where all are lent, the one that was lent longest ago is taken.
            noted: when a study was offered, seconds since 1970 (`Studies.offers`); studies that never were are missing.
            order: puts the studies that are not lent, with the seconds since each was, in the order of preference.
        """
        with self._lock:
            now = self._now()
            # A time to come, of a clock that was set back, counts like one that passed.
            ages = {i: abs(now - max(noted.get(i, 0.0), self._given.get(i, 0.0))) for i in image_ids}
            free = [image_id for image_id in image_ids if ages[image_id] >= self.lease_s]
            chosen = order(free, ages)[0] if free else max(image_ids, key=ages.__getitem__)
            self._given[chosen] = now
            return chosen
