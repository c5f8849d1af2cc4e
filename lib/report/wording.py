"""Format times, durations and the names of programs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo

from lib.annotations.moments import LONG_AGO, moment_of

_BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Version", "Safari"))


def local_time(time: str | datetime, zone: tzinfo | None = None) -> str:
    """Format a time as "3 Nov 2026, 11:02"; text that is not a time is returned unchanged.

    Args:
        time: ISO 8601, or a moment with its zone.
        zone: default: time zone of this machine.
    """
    moment = moment_of(time) if isinstance(time, str) else time
    if moment == LONG_AGO:
        return str(time)
    moment = moment.astimezone(zone)
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{moment.day} {months[moment.month - 1]} {moment.year}, {moment:%H:%M}"


def duration(start: str, end: str) -> str:
    """Format the time from one moment to another as "2 min"; empty if one is not a time."""
    moments = moment_of(start), moment_of(end)
    if LONG_AGO in moments:
        return ""
    took = moments[1] - moments[0]
    if took < timedelta(minutes=1):
        return f"{took.seconds} s"
    hours, minutes = divmod(round(took.total_seconds() / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def program_name(user_agent: str) -> str:
    """Return name and version of a browser, as "Firefox 140"; the user agents of other programs are unchanged."""
    for token, name in _BROWSERS:
        if user_agent.startswith("Mozilla/") and (found := re.search(rf"\b(?:Headless)?{token}/(\d+)", user_agent)):
            return f"{name} {found[1]}"
    return user_agent
