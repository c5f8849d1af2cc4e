"""Record which studies are skipped, by whom and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import HTTPException

from lib.annotations.json_file import JsonFile

MAX_REASON_CHARACTERS = 200


class Skips:
    """Skipped studies of a project. A skip ends when it is taken back or the study is annotated.

    Args:
        file: file of the project, shared by its servers.
    """

    def __init__(self, file: JsonFile) -> None:
        self._file = file

    def all(self) -> dict[str, dict[str, str]]:
        """Return all skips by image id: `reason`, `annotator`, and `created` (ISO 8601)."""
        return {image_id: _skip(kept) for image_id, kept in self._file.items().items()}

    def of(self, image_id: str) -> dict[str, str] | None:
        """Return the skip of an image; None if it is not skipped."""
        kept = self._file.get(image_id)
        return _skip(kept) if kept else None

    def skip(self, image_id: str, reason: str, annotator: str) -> dict[str, str]:
        """Skip a study; replaces an earlier skip.

        Raises:
            OSError: the disk is full.
        """
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        skip = {"reason": reason, "annotator": annotator, "created": created}
        self._file.change(image_id, lambda kept: dict(skip))
        return skip

    def end(self, image_id: str) -> bool:
        """End the skip of a study; return whether it was skipped.

        Raises:
            OSError: the disk is full.
        """
        if not self._file.get(image_id):
            return False
        self._file.change(image_id, lambda kept: None)
        return True


def checked_reason(reason: Any) -> str:
    """Return the reason in a request, with single spaces.

    Raises:
        HTTPException: 422, not a text, or too long.
    """
    if reason is None:
        return ""
    if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARACTERS:
        raise HTTPException(
            422, f"The reason is {str(reason)[:80]!r}; expected a text of at most {MAX_REASON_CHARACTERS} characters."
        )
    return " ".join(reason.split())


def _skip(kept: dict[str, Any]) -> dict[str, str]:
    return {key: str(kept.get(key, "")) for key in ("reason", "annotator", "created")}
