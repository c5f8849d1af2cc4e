"""Read the times in records, which are ISO 8601."""

from __future__ import annotations

from datetime import UTC, datetime

LONG_AGO = datetime.min.replace(tzinfo=UTC)


def moment_of(text: str) -> datetime:
    """Parse a time in ISO 8601, UTC without a time zone; an invalid text gives `LONG_AGO`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return LONG_AGO
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
