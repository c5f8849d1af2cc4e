"""Read how far the readers of each study agree, as measured by the server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.annotations.mask_file import MaskError
from lib.annotations.mask_store import MaskStore


@dataclass(frozen=True)
class ReaderAgreement:
    """Agreement of one label in two readings of a study.

    Attributes:
        dice: Dice score in [0, 1].
        largest_mm: largest distance between the outermost faces of the masks; None if one mask is empty.
        decision: chosen reader and reviewer; empty if the study is not decided.
    """

    image_id: str
    readers: tuple[str, str]
    label: str
    dice: float
    largest_mm: float | None
    decision: str


def reader_agreements(path: Path, finals: MaskStore) -> list[ReaderAgreement]:
    """Read the agreements, sorted by increasing agreement; empty if the file cannot be read.

    Args:
        path: file of the agreements, written by the server.
        finals: final masks of the project, which record the decisions.
    """
    try:
        content = json.loads(path.read_bytes())
        images = [(image_id, of, _decision(finals, image_id)) for image_id, of in content.items()]
        found = [one for of_image in images for one in _of_image(*of_image)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return sorted(found, key=lambda one: (one.dice, -(one.largest_mm or 0), one.image_id, one.label))


def _of_image(image_id: str, content: Mapping[str, Any], decision: str) -> Iterator[ReaderAgreement]:
    for pair in content["pairs"]:
        one, other = pair["readers"]
        for label, of in pair["labels"].items():
            largest_mm = None if of["largest_mm"] is None else float(of["largest_mm"])
            yield ReaderAgreement(image_id, (str(one), str(other)), label, float(of["dice"]), largest_mm, decision)


def _decision(finals: MaskStore, image_id: str) -> str:
    try:
        decision = (finals.record(image_id).info or {}).get("decision")
    except (FileNotFoundError, MaskError):
        return ""
    return f"{decision['reader']}, by {decision['by']}" if isinstance(decision, dict) else ""
