"""Keep which studies were skipped, by whom and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import HTTPException

from lib.annotations.json_file import JsonFile

MAX_REASON_CHARACTERS = 200


class Skips:
    """The skipped studies of a project, until somebody takes the skip back or works on the study again.

    Args:
        file: of the project, shared by its servers.
    """

    def __init__(self, file: JsonFile) -> None:
        self._file = file

    def all(self) -> dict[str, dict[str, str]]:
        """By image id: the `reason`, the `annotator`, and when it was skipped (`created`, ISO 8601)."""
        return {image_id: _skip(kept) for image_id, kept in self._file.items().items()}

    def of(self, image_id: str) -> dict[str, str] | None:
        """That of an image; None where it is not skipped."""
        kept = self._file.get(image_id)
        return _skip(kept) if kept else None

    def skip(self, image_id: str, reason: str, annotator: str) -> dict[str, str]:
        """Skips a study that is there; a new skip takes the place of one before. Raises: OSError: the disk is full."""
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        skip = {"reason": reason, "annotator": annotator, "created": created}
        self._file.change(image_id, lambda kept: dict(skip))
        return skip

    def end(self, image_id: str) -> bool:
        """Takes a skip back; returns whether there was one. Raises: OSError: the disk is full."""
        if not self._file.get(image_id):
            return False
        self._file.change(image_id, lambda kept: None)
        return True


def checked_reason(reason: Any) -> str:
    """The reason of a request. Raises: HTTPException: 422."""
    if reason is None:
        return ""
    if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARACTERS:
        raise HTTPException(
            422, f"The reason is {str(reason)[:80]!r}; expected a text of at most {MAX_REASON_CHARACTERS} characters."
        )
    return " ".join(reason.split())


def _skip(kept: dict[str, Any]) -> dict[str, str]:
    return {key: str(kept.get(key, "")) for key in ("reason", "annotator", "created")}
