"""Read JSON that can be written and sent again: finite numbers, valid Unicode, no deep nesting."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 16


def finite_json(text: str | bytes) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: it is not JSON, deeper than 16 levels, or contains NaN, infinity, integers of more than 64 bits or
            half surrogate pairs.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant)
        check_json(value)
    except RecursionError as error:
        raise ValueError(f"nested too deeply, expected at most {MAX_DEPTH} levels") from error
    return value


def check_json(value: Any, depth: int = MAX_DEPTH) -> None:
    """Raise a ValueError if a value is not as `finite_json` requires."""
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
            check_json(key, depth)
            check_json(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            check_json(item, depth - 1)


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant}, expected finite numbers")
