"""Decide between the readings of a study: the chosen one becomes the project's annotation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from fastapi import HTTPException

from lib.annotations.mask_file import MaskError, MaskRecord, require_grid
from lib.annotations.names import label_values
from lib.annotations.store import AnnotationFileError, Answer
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, VolumeError
from lib.server.http.disk_full import writing
from lib.server.review.agreements import Agreements
from lib.server.review.readings import DECISION_KEY, Reading, Readings

THIRD = "third"
"""Value of `Choice.reader` for the reviewer's own reading."""


@dataclass(frozen=True)
class Choice:
    """Decision of a reviewer.

    Attributes:
        reader: name of the reader whose reading is chosen, or `THIRD`.
        version: version of the readings that the reviewer saw (`Review.listing`).
    """

    reader: str
    version: str


class Review:
    """Reviewers' access to the readings of a project.

    A reviewer sees the readings of a study, and decides, when the required number of other readers have finished. So
    nobody sees the readings of a study that they may still be asked to read.
    """

    def __init__(self, readings: Readings) -> None:
        self.readings = readings
        self.studies = readings.studies
        self.agreements = Agreements(readings)

    def listing(self, reviewer: str) -> list[dict[str, Any]]:
        """Return all studies that are being read or are decided.

        The `state` of each is `to decide`, `in work` or `decided`; the list is sorted by state in this order, then by
        increasing agreement.
        """
        begun: dict[str, dict[str, bool]] = {}
        for reader in self.readings.readers():
            for image_id, is_read in self.readings.of(reader).begun().items():
                begun.setdefault(image_id, {})[reader] = is_read
        decided = self.studies.decided()
        shown = [
            self._entry(image_id, begun.get(image_id, {}), image_id in decided, reviewer)
            for image_id in self.studies.list_images()
            if image_id in begun or image_id in decided
        ]
        return sorted(shown, key=_order)

    def to_decide(self, reviewer: str) -> list[str]:
        """Return the ids of the studies that a reviewer can decide, by increasing agreement."""
        return [entry["id"] for entry in self.listing(reviewer) if entry["state"] == "to decide"]

    def entry(self, image_id: str, reviewer: str) -> dict[str, Any]:
        """Return the entry of one study in `listing`.

        Raises:
            HTTPException: 404, no such image.
        """
        self.studies.require_image(image_id)
        begun = {
            reader: found[image_id]
            for reader in self.readings.readers()
            if image_id in (found := self.readings.of(reader).begun([image_id]))
        }
        return self._entry(image_id, begun, image_id in self.studies.decided([image_id]), reviewer)

    def reading(self, image_id: str, reader: str, reviewer: str) -> Volume:
        """Return the mask (X, Y, Z) uint8 of a reading.

        Raises:
            HTTPException: 404, no such reading; 409, the reviewer may not see it yet, or it cannot be read.
        """
        self.studies.require_image(image_id)
        finished = self.readings.finished([image_id]).get(image_id, set())
        if reader not in finished:
            raise HTTPException(404, f"{reader[:80]!r} has not finished reading {image_id!r}.")
        if reader != reviewer and image_id not in self.studies.decided([image_id]):
            self._require_open(image_id, finished, reviewer)
        with _usable():
            mask = self.readings.of(reader).label_map(image_id)
        return mask if mask is not None else self._empty(image_id, self.readings.of(reader))

    def label_maps(self, image_id: str, geometry: ImageGeometry, reviewer: str) -> dict[str, np.ndarray]:
        """Return the label map (X, Y, Z) uint8 of each finished reading of an image.

        Args:
            geometry: geometry of the image.

        Raises:
            HTTPException: 404, there is none; 409, the reviewer may not see them yet, or one cannot be used.
        """
        finished = self.readings.finished([image_id]).get(image_id, set())
        if not finished:
            raise HTTPException(404, f"Nobody has finished reading {image_id!r}.")
        if image_id not in self.studies.decided([image_id]):
            self._require_open(image_id, finished, reviewer)
        maps = {}
        for reader in sorted(finished):
            with _usable():
                mask = self.readings.of(reader).label_map(image_id)
                if mask is not None:
                    require_grid(mask.geometry, geometry, f"of {reader!r}")
            maps[reader] = mask.array if mask is not None else np.zeros(geometry.shape, np.uint8)
        return maps

    def decide(self, image_id: str, choice: Choice, reviewer: str) -> dict[str, Any]:
        """Copy the clicks and the mask of the chosen reading to the project. Repeating a decision changes nothing.

        The mask, which records the decision, is stored first, in one step.

        Raises:
            HTTPException: 404, no such image or reading; 409, the study has another decision, is not finished, was
                read by the reviewer, or its readings have changed; 507, the disk is full.
        """
        self.studies.require_image(image_id)
        with self.readings.locked(image_id), _refusals():
            finished = self.readings.finished([image_id]).get(image_id, set())
            self._require_open(image_id, finished, reviewer)
            chosen = self._chosen(choice, finished, reviewer)
            others = finished - {reviewer}
            if choice.version != self.readings.version(image_id, others):
                raise HTTPException(
                    409, "The readings have changed since you saw them; look at them again, then decide."
                )
            reading = self.readings.of(chosen)
            if image_id in self.studies.decided([image_id]):
                self._require_same(image_id, chosen, reviewer)
            else:
                self._store(image_id, reading, finished, reviewer)
            for answer in self._answers(image_id, reading):
                if not self._is_stored(answer):
                    self.studies.clicks.save(answer)
            return self.readings.decision(image_id) or {}

    def take_back(self, image_id: str) -> dict[str, Any]:
        """Take a decision back: restore the project's earlier clicks and mask; the readings can be changed again.

        The clicks are reverted first, so that no training uses them without their mask.

        Returns:
            The decision that was taken back.

        Raises:
            HTTPException: 404, there is no decision; 409, the mask cannot be read; 507, the disk is full.
        """
        self.studies.require_image(image_id)
        with self.readings.locked(image_id), _refusals():
            decision = self.readings.decision(image_id)
            if decision is None:
                raise HTTPException(404, f"There is no decision on {image_id!r} to take back.")
            for answer in self._answers(image_id, self.readings.of(str(decision["reader"]))):
                if self._is_stored(answer):
                    self.studies.clicks.revert(image_id, answer.label)
            self.studies.masks().revert(image_id)
            return decision

    def _answers(self, image_id: str, reading: Reading) -> list[Answer]:
        """Return the answers of a reading to labels of the app that are of the current image."""
        checksum = self._checksum(image_id)
        return [one for one in reading.answers(image_id) if one.label in self.studies.labels and one.is_of(checksum)]

    def _checksum(self, image_id: str) -> str | None:
        """Return the checksum of an image's voxels; None if it is not local or cannot be read."""
        path = self.studies.image_path(image_id)
        try:
            return None if path is None else self.studies.identities.checksum(path)
        except VolumeError:
            return None

    def _empty(self, image_id: str, reading: Reading) -> Volume:
        """Return the empty mask of a reading in which all labels are absent."""
        geometry = self._answers(image_id, reading)[0].geometry
        return Volume(np.zeros(geometry.shape, np.uint8), geometry)

    def _entry(self, image_id: str, begun: Mapping[str, bool], is_decided: bool, reviewer: str) -> dict[str, Any]:
        finished = {reader for reader, is_read in begun.items() if is_read}
        is_open = is_decided or self._is_open(finished, reviewer)
        shown = [
            {"reader": reader, "created": self.readings.of(reader).created(image_id), "finished": is_read}
            for reader, is_read in sorted(begun.items())
        ]
        entry: dict[str, Any] = {
            "id": image_id,
            "state": "decided" if is_decided else "to decide" if is_open else "in work",
            "readings": shown,
            "version": self.readings.version(image_id, finished - {reviewer}),
        }
        if is_open and len(finished) > 1:
            entry["agreement"] = self.agreements.of(image_id, finished)
        if is_decided:
            entry["decision"] = self.readings.decision(image_id)
        return entry

    def _is_open(self, finished: Collection[str], reviewer: str) -> bool:
        return len(set(finished) - {reviewer}) >= self.readings.people

    def _require_open(self, image_id: str, finished: Collection[str], reviewer: str) -> None:
        if self._is_open(finished, reviewer):
            return
        if reviewer in finished and len(finished) >= self.readings.people:
            raise HTTPException(
                409, f"You are one of the readers of {image_id!r}; another reviewer sees its readings and decides."
            )
        raise HTTPException(
            409,
            f"{len(finished)} of {self.readings.people} people have read {image_id!r}; its readings are shown, and "
            "decided, when all have.",
        )

    def _chosen(self, choice: Choice, finished: Collection[str], reviewer: str) -> str:
        chosen = reviewer if choice.reader == THIRD and THIRD not in finished else choice.reader
        if chosen in finished:
            return chosen
        if chosen == reviewer:
            raise HTTPException(
                409, "You have no reading of your own: submit a mask of all labels, then choose it as the third."
            )
        raise HTTPException(
            404, f"There is no finished reading by {chosen[:80]!r}; expected one of {', '.join(sorted(finished))}."
        )

    def _require_same(self, image_id: str, chosen: str, reviewer: str) -> None:
        decision = self.readings.decision(image_id)
        if decision is None:
            raise HTTPException(409, f"The image {image_id!r} has a final mask already; an admin can delete it.")
        if (decision["reader"], decision.get("by")) != (chosen, reviewer):
            raise HTTPException(
                409,
                f"{decision.get('by')!r} has decided for the reading by {decision['reader']!r} already; take that "
                "decision back first.",
            )

    def _store(self, image_id: str, reading: Reading, finished: Collection[str], reviewer: str) -> None:
        """Store the mask of a reading as the final mask of all labels; absent labels are empty."""
        mask, before = reading.label_map(image_id), reading.mask_record(image_id)
        checksum = self._checksum(image_id) or (before.image_checksum if before is not None else None)
        agreement = self.agreements.of(image_id, finished)
        decision = {
            "reader": reading.reader,
            "by": reviewer,
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "readers": sorted(finished),
            "dice": agreement.get("dice"),
            "largest_mm": agreement.get("largest_mm"),
        }
        info = {**((before.info if before is not None else None) or {}), DECISION_KEY: decision}
        record = MaskRecord(label_values(self.studies.labels), reading.reader, image_checksum=checksum, info=info)
        self.studies.masks().save(image_id, mask if mask is not None else self._empty(image_id, reading), record)

    def _is_stored(self, answer: Answer) -> bool:
        """Tell whether the project's answer to this label is this one."""
        try:
            stored = self.studies.clicks.load(answer.image_id, answer.label)
        except (FileNotFoundError, AnnotationFileError):
            return False
        return (stored.created, stored.annotator) == (answer.created, answer.annotator)


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except (MaskError, OSError) as error:
        raise HTTPException(409, f"The reading cannot be used. {error}") from error


@contextmanager
def _refusals() -> Iterator[None]:
    gone = HTTPException(409, "The study was changed by somebody else just now; look at it again.")
    try:
        with writing("The decision", gone=gone):
            yield
    except (MaskError, AnnotationFileError) as error:
        raise HTTPException(409, f"{error} The decision was left as it was.") from error


def _order(entry: Mapping[str, Any]) -> tuple[int, float, float, str]:
    """Return the sorting key: state, then increasing agreement."""
    state = ("to decide", "in work", "decided").index(entry["state"])
    agreement = entry.get("agreement") or {}
    dice, largest_mm = agreement.get("dice"), agreement.get("largest_mm")
    if dice is None:  # readings that cannot be compared come first
        return state, -1.0, 0.0, entry["id"]
    return state, dice, -(float("inf") if largest_mm is None else largest_mm), entry["id"]
