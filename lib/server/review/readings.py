"""Store the annotations of each reader of a study separately."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
from fastapi import HTTPException
from filelock import FileLock

from lib.activelearning.leases import Leases
from lib.annotations.atomic_write import write_atomically
from lib.annotations.image_identity import file_stamp
from lib.annotations.moments import moment_of
from lib.annotations.store import AnnotationStore, Answer
from lib.geometry.volume import Volume
from lib.server.masks.annotation_set import AnnotationSet
from lib.server.project import CLICK_TAG, FINAL_TAG, Project

if TYPE_CHECKING:
    from lib.server.studies.datastore import Studies

logger = logging.getLogger(__name__)

DECISION_KEY = "decision"
"""Key in `MaskRecord.info` of a final mask: who chose which reading, and when."""

_NAME_FILE = "reader.json"
_MAX_NAME_BYTES = 120


class Reading(AnnotationSet):
    """Clicks and masks of one reader.

    Args:
        reader: name of the reader.
        guarded: see `_Clicks`.
    """

    def __init__(
        self, studies: Studies, reader: str, folder: Path, guarded: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        super().__init__(Project(folder), studies.labels, studies.labels, studies.identities)
        self.reader = reader
        self.clicks = _Clicks(self.folders.clicks, guarded)
        self._studies = studies

    def list_images(self) -> list[str]:
        return self._studies.list_images()

    def local_images(self) -> dict[str, Path]:
        return self._studies.local_images()

    def begun(self, images: Sequence[str] | None = None) -> dict[str, bool]:
        """Tell for each image with annotations of the reader whether the reading is finished.

        It is finished if each label is covered by a mask or marked as absent; clicks alone do not count.
        """
        found = {}
        for image_id, summaries in self.summaries_by_image(images).items():
            covered = {label for one in summaries.get(FINAL_TAG, ()) for label in one.labels}
            absent = {label for one in summaries.get(CLICK_TAG, ()) for label in one.absent}
            found[image_id] = set(self.labels) <= covered | absent
        return found

    def created(self, image_id: str) -> str:
        """Return the time of the reader's latest annotation of an image (ISO 8601); empty if unknown."""
        moments = [answer.created for answer in self.answers(image_id)]
        if (record := self.mask_record(image_id)) is not None:
            moments.append(record.created)
        return max(moments, key=moment_of, default="")

    def answers(self, image_id: str) -> list[Answer]:
        """Return the reader's readable answers on an image, by label."""
        return [one for path in self.clicks.paths_of(image_id) if (one := self._answer(path)) is not None]

    def label_map(self, image_id: str) -> Volume | None:
        """Return the reader's mask of an image (X, Y, Z) uint8, with the app's values; None if there is no mask.

        Raises:
            MaskError: it cannot be read, or has a label that the app does not have.
        """
        try:
            mask = self.masks().load(image_id)
        except FileNotFoundError:
            return None
        return Volume(mask.array.astype(np.uint8), mask.geometry)

    def stamps(self, image_id: str) -> list[tuple[str, object]]:
        """Return names and stamps of the files of an image's reading, which change with the reading."""
        files = sorted([*self.clicks.paths_of(image_id), *self.masks().files(image_id)])
        return [(path.name, file_stamp(path)) for path in files]


class _Clicks(AnnotationStore):
    """Store of clicks that refuses to write when the study is decided.

    Args:
        guarded: makes a context for an image id, in which the study cannot be decided; raises HTTPException 409 if it
            is decided.
    """

    def __init__(self, folder: Path, guarded: Callable[[str], AbstractContextManager[None]]) -> None:
        super().__init__(folder)
        self._guarded = guarded

    def save(self, answer: Answer) -> Path:
        """Store an answer.

        Raises:
            HTTPException: 409, the study is decided.
        """
        with self._guarded(answer.image_id):
            return super().save(answer)


class Readings:
    """Readings of a project. Each study is read by several readers, who do not see each other's annotations.

    A study is decided if its final mask in the project covers all labels.

    Args:
        people: number of readers of each study; with 1, there are no readings, and all users share the project's
            annotations.
        leases: leases of the studies.
    """

    def __init__(self, studies: Studies, people: int, leases: Leases) -> None:
        self.studies = studies
        self.people = people
        self.leases = leases
        self._folder = studies.project.readings
        self._known: dict[str, Reading] = {}

    def of(self, reader: str) -> Reading:
        """Return the annotations of a reader, which may be empty."""
        folder = self._folder / folder_name(reader)
        reading = self._known.get(reader)
        if reading is None:
            reading = self._known[reader] = Reading(self.studies, reader, folder, lambda i: self._guarded(i, reader))
        return reading

    def readers(self) -> list[str]:
        """Return the names of all readers with annotations, sorted."""
        return sorted(_reader_of(path.parent) for path in self._folder.glob(f"*/{_NAME_FILE}"))

    def seen_by(self, reader: str | None, image_id: str) -> AnnotationSet:
        """Return the annotations of an image that a reader may see: their own, or the project's if it is decided."""
        is_shared = self.people == 1 or reader is None or image_id in self.studies.decided([image_id])
        return self.studies if is_shared else self.of(str(reader))

    @contextmanager
    def changing(self, image_id: str, reader: str) -> Iterator[AnnotationSet]:
        """Lock the study against decisions, and give the annotations that a reader may change.

        Raises:
            HTTPException: 404, no such image; 409, it is decided.
        """
        if self.people == 1:
            yield self.studies
            return
        reading = self.of(reader)
        with self._guarded(image_id, reader):
            yield reading

    @contextmanager
    def locked(self, image_id: str) -> Iterator[None]:
        """Lock the readings of an image and its decision against changes by others."""
        folder = self.studies.project.own / "reading_locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{hashlib.sha256(image_id.encode()).hexdigest()[:32]}.lock"):
            yield

    @contextmanager
    def _guarded(self, image_id: str, reader: str) -> Iterator[None]:
        self.studies.require_image(image_id)
        with self.locked(image_id):
            if image_id in self.studies.decided([image_id]):
                raise HTTPException(
                    409,
                    f"The readings of {image_id!r} are decided and cannot be changed; ask a reviewer to take the "
                    "decision back.",
                )
            self._note_reader(reader)
            yield
        self.leases.renew(image_id, reader)

    def _note_reader(self, reader: str) -> None:
        path = self._folder / folder_name(reader) / _NAME_FILE
        if not path.exists():
            write_atomically(path, json.dumps({"name": reader}).encode())

    def decision(self, image_id: str) -> dict[str, Any] | None:
        """Return the decision that made the final mask of a study; None if there is none."""
        record = self.studies.mask_record(image_id)
        decision = (record.info or {}).get(DECISION_KEY) if record is not None else None
        return decision if isinstance(decision, dict) and "reader" in decision else None

    def finished(self, images: Sequence[str] | None = None) -> dict[str, set[str]]:
        """Return the readers that have finished each image, without images that nobody has finished.

        Args:
            images: ids of the images to check; default: all.
        """
        found: dict[str, set[str]] = {}
        for reader in self.readers():
            for image_id, is_read in self.of(reader).begun(images).items():
                if is_read:
                    found.setdefault(image_id, set()).add(reader)
        return found

    def version(self, image_id: str, readers: Collection[str]) -> str:
        """Return a text that changes with the readings of an image by these readers."""
        content = repr([(reader, self.of(reader).stamps(image_id)) for reader in sorted(readers)])
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def files(self, image_id: str) -> list[Path]:
        """Return the files of all readings of an image."""
        return [file for reader in self.readers() for file in self.of(reader).annotation_files(image_id)]

    def forget_copies(self, image_id: str) -> None:
        for reader in self.readers():
            self.of(reader).forget_copies(image_id)


def folder_name(reader: str) -> str:
    """Return a unique, valid folder name for the name of a reader."""
    name = quote(reader, safe="", errors="replace").replace(".", "%2E")
    if 0 < len(name) <= _MAX_NAME_BYTES:
        return name
    # No quoted name holds a '+'.
    return f"{name[: _MAX_NAME_BYTES - 40]}+{hashlib.sha256(reader.encode(errors='replace')).hexdigest()[:32]}"


def _reader_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / _NAME_FILE).read_bytes())["name"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        logger.error("%s of %s cannot be read (%s); the folder's name is used.", _NAME_FILE, folder.name, error)
        return unquote(folder.name)
