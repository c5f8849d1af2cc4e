"""Read and write `labels.json`: the index of each label in the masks of a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib.annotations.atomic_write import write_atomically
from lib.annotations.names import label_values

LABELS_FILE = "labels.json"


def read_label_indices(path: Path) -> dict[str, int]:
    """Read the index (from 1) of each label, such as {"lesion": 1, "cyst": 2}.

    Raises:
        ValueError: the file is in another form.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict) or not content or not all(_is_index(index) for index in content.values()):
        raise ValueError(f'{path} does not give the index of each label; expected such as {{"lesion": 1, "cyst": 2}}.')
    return content


def label_indices_of(folder: Path, labels: Sequence[str]) -> dict[str, int]:
    """Return the index of each label in the masks of a folder: from its `labels.json`, or else in the labels' order.

    Raises:
        ValueError: the file cannot be read.
    """
    path = folder / LABELS_FILE
    return read_label_indices(path) if path.exists() else label_values(labels)


def write_label_indices(path: Path, indices: Mapping[str, int]) -> None:
    """Write the index of each label."""
    write_atomically(path, json.dumps(dict(indices), indent=1, ensure_ascii=False).encode())


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
