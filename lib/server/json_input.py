"""JSON that comes in with a request, checked once for everything that the server keeps or computes with."""

from __future__ import annotations

import json
import math
from typing import Any

from fastapi import HTTPException

MAX_BYTES = 1_000_000
MAX_DEPTH = 16


def json_object(text: str | bytes, name: str) -> dict[str, Any]:
    """The object of a JSON text of at most 1 MB, 16 levels, finite numbers and valid Unicode.

    Args:
        name: of the text in the request, for the sentence.

    Raises:
        HTTPException: 413, too large; 422, anything else that is wrong with it.
    """
    content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(content) > MAX_BYTES:
        raise HTTPException(413, f"The {name} have {len(content)} bytes; expected at most {MAX_BYTES}.")
    try:
        parsed = json.loads(content or b"{}", parse_constant=_no_constant)
        _check(parsed, MAX_DEPTH)
    except RecursionError as error:
        raise HTTPException(422, f"The {name} are nested too deeply; expected at most {MAX_DEPTH} levels.") from error
    except ValueError as error:
        raise HTTPException(422, f"The {name} are not valid JSON ({error}).") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise HTTPException(422, f"The {name} are {json.dumps(parsed)[:80]}; expected a JSON object.")
    return parsed


def check_text(text: str, name: str) -> None:
    """Raises: HTTPException: 422, text that UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HTTPException(422, f"The {name} is {text[:80]!a}; expected valid Unicode.") from error


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant}, expected finite numbers")


def _check(value: Any, depth: int) -> None:
    """Raises: ValueError: too deep, not finite, or no Unicode."""
    if depth < 0:
        raise ValueError(f"nested too deeply, expected at most {MAX_DEPTH} levels")
    if isinstance(value, str):
        value.encode()  # a half surrogate pair is a ValueError
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number beyond the range of a double, expected finite numbers")
    elif isinstance(value, int) and abs(value) > 2**63:
        raise ValueError("a whole number of more than 64 bits")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, depth)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
