"""Lease studies to annotators, for all servers of a project and across restarts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lib.annotations.json_file import JsonFile

logger = logging.getLogger(__name__)

LEASE_S = 30 * 60.0
"""A lease ends half an hour after the last click; a study takes about a minute."""

RENEWED_S = 60.0
"""Minimum age of a lease to renew it, which limits writes: each label of each click request renews it."""

Order = Callable[[list[str], Mapping[str, float]], list[str]]
"""Sorts studies, given the seconds since each was last lent, by preference."""


class Leases:
    """Leases of each study to a limited number of people at a time.

    The file holds, by image id and person, the time of the last lease. A study is chosen and lent under the lock of the
    file, so that two servers never lend the same one. Leases expire.

    Args:
        file: shared by the servers of the project.
        people: number of readers of each study.
        lease_s: duration of a lease.
        now: returns the seconds since 1970.
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
        """Choose a study and lend it, in one step.

        With one reader per study, the study that was lent longest ago is chosen if all are lent. With several readers,
        a person gets no study that they have read or have on lease, and no study with enough readers; studies with
        readers come first.

        Args:
            image_ids: at least one study.
            who: person who gets the study.
            done: people who have read a study, by image id.

        Returns:
            The study, or None if none is left for this person.
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
            logger.warning("The lease of %s cannot be stored (%s).", who, error.strerror)
        return chosen[0] if chosen else None

    def lent(self) -> dict[str, dict[str, float]]:
        """Return the current leases: the seconds since each began, by study and person."""
        now = self._now()
        ages = {image_id: self._ages(kept, now) for image_id, kept in self.file.items().items()}
        lent = {image_id: {who: age for who, age in of.items() if age < self.lease_s} for image_id, of in ages.items()}
        return {image_id: of for image_id, of in lent.items() if of}

    def end(self, image_id: str, who: str) -> None:
        """End the lease of a person on a study."""
        if who not in self.file.get(image_id):
            return
        try:
            self.file.change(image_id, lambda kept: {name: at for name, at in kept.items() if name != who} or None)
        except OSError as error:
            logger.warning("The lease of %s on %s cannot be ended (%s).", who, image_id, error.strerror)

    def renew(self, image_id: str, who: str) -> None:
        """Renew the lease of a person on a study, or start one."""
        lent = self.file.get(image_id).get(who)
        if isinstance(lent, (int, float)) and abs(self._now() - lent) < RENEWED_S:
            return
        try:
            self.file.change(image_id, lambda kept: {**kept, who: self._now()})
        except OSError as error:
            logger.warning("The lease of %s on %s cannot be stored (%s).", who, image_id, error.strerror)

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
        """Return the seconds since a study was lent to each person. Timestamps in the future count as past."""
        return {name: abs(now - at) for name, at in kept.items() if isinstance(at, (int, float))}
