"""Record how the network made a proposal: a mask in advance that is not reviewed yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lib.annotations.image_identity import Stamp

PROPOSAL_TAG = "proposal"
"""Tag of the masks. Proposals are not annotations and are not trained on."""

MAKER = "automatic"
"""Annotator in the records of proposals."""

_KEY = "proposal"


@dataclass(frozen=True)
class Proposal:
    """Record of a proposal.

    Attributes:
        model_version, model_sha256: of the published model that made it.
        model_score: of that model on held-out scans, in [0, 1]; None without held-out scans.
        quality: estimated quality of the mask, in [0, 1]; higher is better (`lib.inference.quality`).
        image_stamp: `file_stamp` of the image; None for an image of an archive.
    """

    model_version: int
    model_sha256: str
    model_score: float | None
    quality: float
    image_stamp: Stamp | None = None

    def info(self) -> dict[str, Any]:
        """Return the record as `MaskRecord.info`."""
        return {_KEY: {**asdict(self), "unreviewed": True}}

    @classmethod
    def of(cls, info: Mapping[str, Any] | None) -> Proposal | None:
        """Return the proposal in the record of a mask; None if the mask is not a proposal."""
        try:
            record = (info or {})[_KEY]
            stamp = record["image_stamp"]
            return cls(
                int(record["model_version"]),
                str(record["model_sha256"]),
                _number(record["model_score"]),
                _number(record["quality"]) or 0.0,
                None if stamp is None else (int(stamp[0]), int(stamp[1]), int(stamp[2])),
            )
        except (KeyError, TypeError, ValueError, IndexError):
            return None

    def gives_way_to(self, sha256: str, score: float | None) -> bool:
        """Tell whether a mask of another model replaces this one: if that model scored better on held-out scans."""
        if sha256 == self.model_sha256 or score is None:
            return False
        return self.model_score is None or score > self.model_score


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number
