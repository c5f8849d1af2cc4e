"""Record who and which model made each segment of a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

NOBODY = "unknown"
"""The annotator in the records of a client without a name."""


@dataclass(frozen=True)
class ModelFile:
    """A trained network.

    Attributes:
        version: its number (`lib.networks.versions`).
        sha256: of its file, in hexadecimal; None where that was not recorded.
    """

    version: int
    sha256: str | None = None

    @classmethod
    def of(cls, version: object, sha256: object) -> ModelFile | None:
        """From what a record or an answer says; None where it names no model."""
        try:
            return cls(int(str(version)), str(sha256) if sha256 else None)
        except ValueError:
            return None


@dataclass(frozen=True)
class SegmentOrigin:
    """Who and which model made a segment.

    Attributes:
        algorithm_type: as in DICOM PS3.3 C.8.20.2: drawn by a person, made from their clicks, or by the network alone.
        reader: the name of who drew, clicked or accepted it; empty where nobody gave one.
        model: the network that took part.
    """

    algorithm_type: Literal["MANUAL", "SEMIAUTOMATIC", "AUTOMATIC"] = "SEMIAUTOMATIC"
    reader: str = ""
    model: ModelFile | None = None


def origins_of_clicks(info: Mapping[str, Any], model: ModelFile | None) -> dict[str, SegmentOrigin]:
    """Of each label of a mask of clicks.

    Args:
        info: what the server says of the clicks on each label.
        model: the network that took part.
    """
    return {label: SegmentOrigin("SEMIAUTOMATIC", _reader(said), model) for label, said in info.items()}


def origins_of_final(info: Mapping[str, Any]) -> dict[str, SegmentOrigin]:
    """Of each label of a final mask.

    Args:
        info: what the server says of the mask; labels that were accepted are under `accepted`, the others were drawn.
    """
    accepted = info.get("accepted")
    accepted = accepted if isinstance(accepted, Mapping) else {}
    return {label: _of_final(info, accepted.get(label)) for label in info.get("labels", ())}


def _of_final(info: Mapping[str, Any], accepted: object) -> SegmentOrigin:
    if not isinstance(accepted, Mapping):
        return SegmentOrigin("MANUAL", _reader(info))
    model = ModelFile.of(accepted.get("model_version"), accepted.get("model_sha256"))
    return SegmentOrigin("SEMIAUTOMATIC", _reader(accepted), model)


def _reader(said: object) -> str:
    name = str(said.get("annotator") or "") if isinstance(said, Mapping) else ""
    return "" if name == NOBODY else name
