"""Parse the JSON of a request, and refuse values that cannot be stored or computed with."""

from __future__ import annotations

import json
from typing import Any

from fastapi import HTTPException

from lib.annotations.json_check import finite_json

MAX_BYTES = 1_000_000


def json_object(text: str | bytes, name: str) -> dict[str, Any]:
    """Parse a JSON object of at most 1 MB and 16 levels, with finite numbers and valid Unicode.

    Args:
        name: Name of the text in the request, for the message.

    Raises:
        HTTPException: 413, the text is too large; 422, it is not valid.
    """
    content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(content) > MAX_BYTES:
        raise HTTPException(413, f"The {name} have {len(content)} bytes; expected at most {MAX_BYTES}.")
    try:
        parsed = finite_json(content or b"{}")
    except ValueError as error:
        raise HTTPException(422, f"The {name} are not valid JSON ({error}).") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise HTTPException(422, f"The {name} are {json.dumps(parsed)[:80]}; expected a JSON object.")
    return parsed


def check_text(text: str, name: str) -> None:
    """Raise HTTPException 422 if UTF-8 cannot encode a text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HTTPException(422, f"The {name} is {text[:80]!a}; expected valid Unicode.") from error
