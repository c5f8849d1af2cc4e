"""Read the times in records, which are ISO 8601."""

from __future__ import annotations

from datetime import UTC, datetime

LONG_AGO = datetime.min.replace(tzinfo=UTC)


def moment_of(text: str) -> datetime:
    """A time in ISO 8601; without a zone it is UTC. What is no time is `LONG_AGO`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return LONG_AGO
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
