"""Write and read the audit log: who did what, when, and from which client."""

from __future__ import annotations

import getpass
import json
import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

logger = logging.getLogger(__name__)

FILE_BYTES = 10 * 2**20


class AuditLog:
    """JSON lines in `audit.jsonl`; a full file is renamed with a time stamp and never deleted.

    Several processes may write to the log of one project.

    Args:
        folder: Folder of the files, created if it is missing.
        file_bytes: Size at which a file is renamed.
    """

    def __init__(self, folder: Path, file_bytes: int = FILE_BYTES) -> None:
        self._folder, self._file_bytes = folder, file_bytes

    def write(self, action: str, who: str, client: Mapping[str, str], details: Mapping[str, object]) -> None:
        """Add a record and flush it to disk; a record that cannot be written goes to the server's log.

        Args:
            action: Kind of change, such as "clicks".
            who: Name of the login, or the name that the client gives.
            client: Address and program of the client.
            details: Details of the change, such as the image.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "action": action, "who": who, "client": dict(client), **details})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / ".lock"):
                self._rotate()
                self._append(line)
        except OSError as error:
            logger.error("The audit log cannot be written (%s); it lacks: %s", error.strerror, line)

    def write_script(self, action: str, script: str, **details: object) -> None:
        """Add a record of a change that a user of this machine makes with a script."""
        self.write(action, getpass.getuser(), {"address": "this machine", "program": script}, details)

    def _rotate(self) -> None:
        path = self._folder / "audit.jsonl"
        if path.exists() and path.stat().st_size >= self._file_bytes:
            path.rename(self._folder / f"audit.{datetime.now(UTC):%Y%m%dT%H%M%S%f}.jsonl")

    def _append(self, line: str) -> None:
        descriptor = os.open(self._folder / "audit.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a power cut
            os.write(descriptor, (("\n" if is_torn else "") + line + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class AuditRecord:
    """Record of the audit log.

    Attributes:
        of: Details, such as "image: scan_1; labels: tumour".
        address, program: Address and program of the client.
    """

    time: str
    who: str
    action: str
    of: str
    address: str
    program: str


def last_records(folder: Path, limit: int) -> list[AuditRecord]:
    """Return the last `limit` records, the newest first; unreadable lines are left out."""
    return list(reversed(deque(_records(folder), maxlen=limit)))


def _records(folder: Path) -> Iterator[AuditRecord]:
    for path in [*sorted(folder.glob("audit.*T*.jsonl")), folder / "audit.jsonl"]:
        try:
            lines = path.read_text("utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                yield _record(json.loads(line))


def _record(content: dict[str, Any]) -> AuditRecord:
    known = {name: str(content.pop(name)) for name in ("time", "who", "action")}
    client = content.pop("client")
    texts = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in content.items()}
    return AuditRecord(
        **known,
        of="; ".join(f"{name}: {value}" for name, value in texts.items() if value != ""),
        address=str(client.get("address", "")),
        program=str(client.get("program", "")),
    )
