"""Detect changes of the training, the published model, and the studies of a project."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from lib.server.events import ChangesByKind
from lib.server.studies.datastore import Studies
from lib.server.studies.study_list import StudyList

FULL_LOOK_S = 30.0
"""Interval of comparing all studies even if no file has changed, as leases expire without a change of a file."""


class Changes:
    """Comparison of the server's state with its state at the last call.

    Args:
        studies: Studies of the project; changes by other servers are detected too.
        training: Returns the progress of the training.
        model: Returns the published version, or None.
    """

    def __init__(
        self,
        studies: Studies,
        training: Callable[[], dict[str, Any]],
        model: Callable[[], Mapping[str, Any] | None],
    ) -> None:
        self._studies, self._training, self._model = studies, training, model
        self._training_before: dict[str, Any] | None = None
        self._model_before: tuple[Mapping[str, Any] | None] | None = None
        self._files_before: object = None
        self._entries_before: dict[str, dict[str, Any]] | None = None
        self._listed_s = 0.0

    def look(self) -> ChangesByKind:
        """Return the changes since the last call; none at the first call."""
        changes: ChangesByKind = {}
        training = self._training()
        compared = {name: value for name, value in training.items() if name != "remaining_s"}
        if compared != self._training_before and self._training_before is not None:
            changes["training"] = training
        self._training_before = compared
        model = self._model()
        if (model,) != self._model_before and self._model_before is not None:
            changes["model"] = {"version": None if model is None else model["version"]}
        self._model_before = (model,)
        if changed := self._changed_studies():
            changes["studies"] = {"ids": changed}
        return changes

    def _changed_studies(self) -> list[str]:
        try:
            files = self._files()
            if files == self._files_before and time.monotonic() - self._listed_s < FULL_LOOK_S:
                return []
            entries = {entry["id"]: entry for entry in StudyList(self._studies).entries(None)}
        except HTTPException:  # the folder or the archive is unreachable
            return []
        before, self._entries_before = self._entries_before, entries
        self._files_before, self._listed_s = files, time.monotonic()
        if before is None:
            return []
        return sorted(id for id in entries.keys() | before.keys() if entries.get(id) != before.get(id))

    def _files(self) -> object:
        """Return a value that changes with the files from which the list of studies is made."""
        project = self._studies.project
        tags = sorted(path for path in project.labels.glob("*") if path.is_dir())
        return self._studies.list_images(), [_name_and_time(path) for path in (*tags, project.skips, project.leases)]


def _name_and_time(path: Path) -> tuple[str, int]:
    try:
        return path.name, path.stat().st_mtime_ns
    except OSError:
        return path.name, 0
