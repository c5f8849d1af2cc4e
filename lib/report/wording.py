"""Format times, durations and the names of programs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo

from lib.report.annotated_image import moment_of

_BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Version", "Safari"))


def local_time(time: str | datetime, zone: tzinfo | None = None) -> str:
    """A moment as "3 Nov 2026, 11:02" in a time zone, that of this machine by default; what is no time as it is.

    Args:
        time: ISO 8601, or a moment with its zone.
    """
    moment = moment_of(time) if isinstance(time, str) else time
    if moment is None:
        return str(time)
    moment = moment.astimezone(zone)
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{moment.day} {months[moment.month - 1]} {moment.year}, {moment:%H:%M}"


def duration(start: str, end: str) -> str:
    """From one moment to another, as "2 min"; empty where one is no time."""
    moments = moment_of(start), moment_of(end)
    if moments[0] is None or moments[1] is None:
        return ""
    took = moments[1] - moments[0]
    if took < timedelta(minutes=1):
        return f"{took.seconds} s"
    hours, minutes = divmod(round(took.total_seconds() / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def program_name(user_agent: str) -> str:
    """The browser that a client names, as "Firefox 140"; other programs as they name themselves."""
    for token, name in _BROWSERS:
        if user_agent.startswith("Mozilla/") and (found := re.search(rf"\b(?:Headless)?{token}/(\d+)", user_agent)):
            return f"{name} {found[1]}"
    return user_agent
