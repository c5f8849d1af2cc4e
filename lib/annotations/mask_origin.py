"""Tell how each label of a final mask was made: accepted, corrected or drawn."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.mask_file import MaskRecord

ACCEPTED_KEY = "accepted"
"""In `MaskRecord.info`: what is recorded of each label that was accepted, by its name."""


class MaskOrigin(StrEnum):
    """How far a mask is a person's own word. A model that was wrong must not confirm itself.

    Attributes:
        ACCEPTED: as the app made it from the six clicks.
        CORRECTED: as the app made it after further clicks on the structure or beside it.
        DRAWN: submitted by an upload. Masks of which nothing is recorded count as drawn.
    """

    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    DRAWN = "drawn"

    @classmethod
    def of_clicks(cls, points: ExtremePoints) -> MaskOrigin:
        """Of a mask that the app made from clicks, and that was accepted."""
        six = len(points.foreground_voxel) == 6 and len(points.background_voxel) == 0
        return cls.ACCEPTED if six else cls.CORRECTED


def acceptances(record: MaskRecord) -> dict[str, Mapping[str, Any]]:
    """What a mask records of each of its labels that was accepted; nothing of one that was drawn."""
    recorded = (record.info or {}).get(ACCEPTED_KEY)
    found = recorded.items() if isinstance(recorded, Mapping) else ()
    return {label: said for label, said in found if label in record.labels and isinstance(said, Mapping)}


def origins(record: MaskRecord) -> dict[str, MaskOrigin]:
    """How each label of a mask came about."""
    accepted = acceptances(record)
    return {label: _origin(accepted.get(label, {}).get("origin")) for label in record.labels}


def _origin(value: Any) -> MaskOrigin:
    return next((origin for origin in MaskOrigin if origin == value), MaskOrigin.DRAWN)
