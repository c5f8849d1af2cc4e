"""Record how the network made a mask in advance that nobody has reviewed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lib.annotations.image_identity import Stamp

PROPOSAL_TAG = "proposal"
"""Tag of the masks. Proposals are no annotations: no training uses them."""

MAKER = "automatic"
"""Annotator in the records of proposals."""

_KEY = "proposal"


@dataclass(frozen=True)
class Proposal:
    """The record of a proposal.

    Attributes:
        model_version, model_sha256: of the published model that made it.
        model_score: of that model on held-out scans, in [0, 1]; None where there were none.
        quality: of the mask, estimated, in [0, 1]; higher is better (`lib.inference.quality`).
        image_stamp: of the image's file (`file_stamp`); None of an archive's image.
    """

    model_version: int
    model_sha256: str
    model_score: float | None
    quality: float
    image_stamp: Stamp | None = None

    def info(self) -> dict[str, Any]:
        """For `MaskRecord.info`."""
        return {_KEY: {**asdict(self), "unreviewed": True}}

    @classmethod
    def of(cls, info: Mapping[str, Any] | None) -> Proposal | None:
        """The proposal in the record of a mask; None where it is none."""
        try:
            said = (info or {})[_KEY]
            stamp = said["image_stamp"]
            return cls(
                int(said["model_version"]),
                str(said["model_sha256"]),
                _number(said["model_score"]),
                _number(said["quality"]) or 0.0,
                None if stamp is None else (int(stamp[0]), int(stamp[1]), int(stamp[2])),
            )
        except (KeyError, TypeError, ValueError, IndexError):
            return None

    def gives_way_to(self, sha256: str, score: float | None) -> bool:
        """Should a mask of another model replace this one? Only if that model scored better on held-out scans."""
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
