"""Keep small records in a JSON file that threads and processes share."""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from lib.annotations.atomic_write import write_atomically
from lib.annotations.json_check import finite_json

logger = logging.getLogger(__name__)


class JsonFile:
    """JSON object of objects on disk, shared by threads and by several servers of one project.

    A damaged file is renamed and replaced by an empty object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._content: dict[str, dict[str, Any]] = {}
        self.items()

    def get(self, key: str) -> dict[str, Any]:
        """Return a copy of the object under a key; empty if there is none."""
        with self._lock:
            self._read()
            return copy.deepcopy(self._content.get(key, {}))

    def items(self) -> dict[str, dict[str, Any]]:
        """Return a copy of all objects."""
        with self._lock:
            self._read()
            return copy.deepcopy(self._content)

    def change(self, key: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        """Replace the object under a key by what `change` returns for it; None removes it.

        Raises:
            OSError: the disk is full or the folder cannot be written; the file is then unchanged.
        """

        def changed(content: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
            value = change(content.pop(key, {}))
            return content if value is None else {**content, key: value}

        self.change_all(changed)

    def change_all(self, change: Callable[[dict[str, dict[str, Any]]], dict[str, dict[str, Any]]]) -> None:
        """Replace all objects by what `change` returns for them.

        Raises:
            OSError: see `change`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, FileLock(self.path.with_name(f".{self.path.name}.lock")):
            self._read(for_change=True)
            content = change(copy.deepcopy(self._content))
            if content != self._content:
                write_atomically(self.path, json.dumps(content, indent=1, allow_nan=False).encode())

    def _read(self, for_change: bool = False) -> None:
        """Read the file if it has changed.

        Raises:
            OSError: it cannot be read, and `for_change` is set.
        """
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
        except OSError:
            stamp = None
        if stamp != self._stamp or stamp is None:
            try:
                self._content, self._stamp = _load(self.path), stamp
            except OSError as error:
                logger.error("%s cannot be read now (%s); what is known of it is used.", self.path.name, error.strerror)
                if for_change:
                    raise


def _load(path: Path) -> dict[str, dict[str, Any]]:
    """Load a file.

    Raises:
        OSError: the file exists and cannot be read.
    """
    try:
        content = finite_json(path.read_bytes())
        if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
            raise ValueError("expected an object of objects")
        return content
    except FileNotFoundError:
        return {}
    except (ValueError, IsADirectoryError) as error:
        kept = path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}.corrupt")
        logger.error("%s cannot be read (%s); it is kept as %s and a new one is started.", path.name, error, kept.name)
        with suppress(FileNotFoundError):  # another server of this project was faster
            path.rename(kept)
        return {}
