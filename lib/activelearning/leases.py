"""Record who works on which study, for all servers of a project and over restarts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lib.annotations.json_file import JsonFile

logger = logging.getLogger(__name__)

LEASE_S = 30 * 60.0
"""An annotator needs about a minute for a study; without a click for half an hour the lease ends."""

RENEWED_S = 60.0
"""A younger lease is not renewed, as each label of each click request would."""

Order = Callable[[list[str], Mapping[str, float]], list[str]]
"""Puts studies, with the seconds since each was lent to somebody, in the order of preference."""


class Leases:
    """Lends each study to a number of people at a time.

    The file holds, by image id, when it was lent to whom last. A study is chosen and lent under the lock of the file,
    so that no two servers lend the same one. A lease ends by itself.

    Args:
        file: of the project, shared by its servers.
        people: who read a study, each on their own.
        now: seconds since 1970, by the clock of this machine.
    """

    def __init__(
        self, file: JsonFile, people: int = 1, lease_s: float = LEASE_S, now: Callable[[], float] = time.time
    ) -> None:
        self.file = file
        self.people = people
        self.lease_s = lease_s
        self._now = now

    def take(
        self,
        image_ids: Sequence[str],
        who: str,
        order: Order,
        done: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> str | None:
        """Chooses a study and lends it, both in one step.

        Where one person reads each study and all are lent, the one that was lent longest ago is taken. Where several
        do, nobody gets a study that they have read or are lent, nor one that enough others have; those that somebody
        has read come first.

        Args:
            image_ids: at least one.
            who: gets it.
            done: who has read a study, by image id.

        Returns:
            None where nothing is left for them.
        """
        chosen: list[str] = []

        def lend(kept: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
            now = self._now()
            found = self._choose({i: self._ages(kept.get(i, {}), now) for i in image_ids}, who, order, done, now)
            if found is None:
                return kept
            chosen.append(found)
            return {**kept, found: {**kept.get(found, {}), who: now}}

        try:
            self.file.change_all(lend)
        except OSError as error:
            logger.warning("It is not recorded what was lent to %s (%s).", who, error.strerror)
        return chosen[0] if chosen else None

    def lent(self) -> dict[str, dict[str, float]]:
        """Who works on which study, with the seconds since each was lent; leases that have ended are left out."""
        now = self._now()
        ages = {image_id: self._ages(kept, now) for image_id, kept in self.file.items().items()}
        lent = {image_id: {who: age for who, age in of.items() if age < self.lease_s} for image_id, of in ages.items()}
        return {image_id: of for image_id, of in lent.items() if of}

    def end(self, image_id: str, who: str) -> None:
        """Ends the lease of a person who no longer works on a study."""
        if who not in self.file.get(image_id):
            return
        try:
            self.file.change(image_id, lambda kept: {name: at for name, at in kept.items() if name != who} or None)
        except OSError as error:
            logger.warning("It is not recorded that %s no longer works on %s (%s).", who, image_id, error.strerror)

    def renew(self, image_id: str, who: str) -> None:
        """Renews the lease of a person who works on a study, or starts one."""
        lent = self.file.get(image_id).get(who)
        if isinstance(lent, (int, float)) and abs(self._now() - lent) < RENEWED_S:
            return
        try:
            self.file.change(image_id, lambda kept: {**kept, who: self._now()})
        except OSError as error:
            logger.warning("It is not recorded that %s works on %s (%s).", who, image_id, error.strerror)

    def _choose(
        self,
        ages: Mapping[str, Mapping[str, float]],
        who: str,
        order: Order,
        done: Mapping[str, Collection[str]],
        now: float,
    ) -> str | None:
        youngest = {image_id: min(of.values(), default=now) for image_id, of in ages.items()}
        free = [image_id for image_id, of in ages.items() if self._is_free(of, who, done.get(image_id, ()))]
        if free:
            return sorted(order(free, youngest), key=lambda image_id: -len(done.get(image_id, ())))[0]
        return max(youngest, key=youngest.__getitem__) if self.people == 1 else None

    def _is_free(self, ages: Mapping[str, float], who: str, done: Collection[str]) -> bool:
        taken = {*done, *(name for name, age in ages.items() if age < self.lease_s)}
        return len(taken) < self.people and who not in taken

    @staticmethod
    def _ages(kept: Mapping[str, Any], now: float) -> dict[str, float]:
        """Seconds since a study was lent to each person.

        Timestamps in the future count as past.
        """
        return {name: abs(now - at) for name, at in kept.items() if isinstance(at, (int, float))}
