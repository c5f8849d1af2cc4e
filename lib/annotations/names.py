"""Check names of images and labels, which become file names."""

from __future__ import annotations

import re
from collections.abc import Sequence

LABEL_NAME = re.compile(r"[^\W_][\w \-]{0,63}")
MAX_LABELS = 255  # masks are of 8 bits
MAX_LABEL_BYTES = 64
MAX_ID_BYTES = 150
"""Maximum of an image id: file systems allow 255 bytes for a file name made of the id, a label and extensions."""


def check_image_id(image_id: str) -> None:
    """Raise a ValueError if an image id is not the plain name of a visible file."""
    if not image_id or image_id.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f]", image_id):
        raise ValueError(f"The image id is {image_id[:80]!r}; expected a name without any folder.")
    try:
        size = len(image_id.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"The image id is {image_id[:80]!r}; expected a name in UTF-8.") from error
    if size > MAX_ID_BYTES:
        raise ValueError(f"The image id has {size} bytes; expected at most {MAX_ID_BYTES}.")


def check_label(label: str) -> None:
    """Raise a ValueError if this is not a valid label."""
    if not is_label(label):
        raise ValueError(
            f"The label is {label[:80]!r}; expected letters, digits, spaces, '-' and '_', in at most 64 bytes."
        )


def is_label(label: str) -> bool:
    """Tell whether a text is a valid label, which can be part of a file name."""
    return LABEL_NAME.fullmatch(label) is not None and len(label.encode()) <= MAX_LABEL_BYTES


def label_values(labels: Sequence[str]) -> dict[str, int]:
    """Return the value of each label in a mask of the app: 1, 2, ... in their order."""
    return {label: value for value, label in enumerate(labels, start=1)}
