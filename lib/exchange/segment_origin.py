"""Record who and which model made each segment of a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

NOBODY = "unknown"
"""Annotator in the records of a client without a name."""


@dataclass(frozen=True)
class ModelFile:
    """Trained network.

    Attributes:
        version: its number (`lib.networks.versions`).
        sha256: of its file, in hexadecimal; None if it was not recorded.
    """

    version: int
    sha256: str | None = None

    @classmethod
    def of(cls, version: object, sha256: object) -> ModelFile | None:
        """Create from values of a record or an answer; None if they name no model."""
        try:
            return cls(int(str(version)), str(sha256) if sha256 else None)
        except ValueError:
            return None


@dataclass(frozen=True)
class SegmentOrigin:
    """Reader and model of a segment.

    Attributes:
        algorithm_type: as in DICOM PS3.3 C.8.20.2: drawn by a person, made from their clicks, or by the network alone.
        reader: name of who drew, clicked or accepted it; empty if unknown.
        model: the network that was used.
    """

    algorithm_type: Literal["MANUAL", "SEMIAUTOMATIC", "AUTOMATIC"] = "SEMIAUTOMATIC"
    reader: str = ""
    model: ModelFile | None = None


def origins_of_clicks(info: Mapping[str, Any], model: ModelFile | None) -> dict[str, SegmentOrigin]:
    """Return the origin of each label of a mask from clicks.

    Args:
        info: the server's information on the clicks on each label.
        model: the network that was used.
    """
    return {label: SegmentOrigin("SEMIAUTOMATIC", _reader(of_label), model) for label, of_label in info.items()}


def origins_of_final(info: Mapping[str, Any]) -> dict[str, SegmentOrigin]:
    """Return the origin of each label of a final mask.

    Args:
        info: the server's information on the mask; accepted labels are under `accepted`, the others were drawn.
    """
    accepted = info.get("accepted")
    accepted = accepted if isinstance(accepted, Mapping) else {}
    return {label: _of_final(info, accepted.get(label)) for label in info.get("labels", ())}


def _of_final(info: Mapping[str, Any], accepted: object) -> SegmentOrigin:
    if not isinstance(accepted, Mapping):
        return SegmentOrigin("MANUAL", _reader(info))
    model = ModelFile.of(accepted.get("model_version"), accepted.get("model_sha256"))
    return SegmentOrigin("SEMIAUTOMATIC", _reader(accepted), model)


def _reader(info: object) -> str:
    name = str(info.get("annotator") or "") if isinstance(info, Mapping) else ""
    return "" if name == NOBODY else name
