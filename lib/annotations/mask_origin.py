"""Tell how each label of a final mask was made: accepted, corrected or drawn."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.mask_file import MaskRecord

ACCEPTED_KEY = "accepted"
"""Key in `MaskRecord.info` of the records of accepted labels."""


class MaskOrigin(StrEnum):
    """Origin of a label of a final mask; a training treats accepted masks of the app and drawn masks differently.

    Attributes:
        ACCEPTED: made by the app from six clicks.
        CORRECTED: made by the app from six clicks and corrective clicks.
        DRAWN: uploaded. Masks without a record count as drawn.
    """

    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    DRAWN = "drawn"

    @classmethod
    def of_clicks(cls, points: ExtremePoints) -> MaskOrigin:
        """Return the origin of an accepted mask from clicks."""
        six = len(points.foreground_voxel) == 6 and len(points.background_voxel) == 0
        return cls.ACCEPTED if six else cls.CORRECTED


def acceptances(record: MaskRecord) -> dict[str, Mapping[str, Any]]:
    """Return the record of each accepted label of a mask."""
    recorded = (record.info or {}).get(ACCEPTED_KEY)
    entries = recorded.items() if isinstance(recorded, Mapping) else ()
    return {label: entry for label, entry in entries if label in record.labels and isinstance(entry, Mapping)}


def origins(record: MaskRecord) -> dict[str, MaskOrigin]:
    """Return the origin of each label of a mask."""
    accepted = acceptances(record)
    return {label: _origin(accepted.get(label, {}).get("origin")) for label in record.labels}


def _origin(value: Any) -> MaskOrigin:
    return next((origin for origin in MaskOrigin if origin == value), MaskOrigin.DRAWN)
