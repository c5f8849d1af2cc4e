"""Read acquisition parameters of a frame (echo time, b-value, time point, ...) as text that names its volume."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

# Attributes of single-frame and multi-frame files (DICOM PS3.3 C.8.3.1, C.8.13) by the prefix in the name of a volume.
# The first attribute that exists counts. Prefixes are in order of preference.
FACTS = {
    "te": ("EffectiveEchoTime", "EchoTime"),
    "b": ("DiffusionBValue",),
    "time": ("TemporalPositionIndex", "TemporalPositionIdentifier"),
    "trigger": ("NominalCardiacTriggerDelayTime", "TriggerTime"),
    "ti": ("InversionTimes", "InversionTime"),
    "fa": ("FlipAngle",),
    "kind": ("ComplexImageComponent", "FrameType", "ImageType"),
    "acquisition": ("FrameAcquisitionNumber", "AcquisitionNumber"),
}
# Private elements with the b-value of GE and Siemens. GE adds a multiple of 10^9 to it.
_B_VALUES = {"GEMS_PARM_01": (Tag(0x0043, 0x1039), 10**6), "SIEMENS MR HEADER": (Tag(0x0019, 0x100C), 10**9)}
_SEQUENCES = (
    *("MREchoSequence", "MRDiffusionSequence", "FrameContentSequence", "CardiacSynchronizationSequence"),
    *("MRModifierSequence", "MRTimingAndRelatedParametersSequence", "MRImageFrameTypeSequence"),
    *("CTImageFrameTypeSequence", "PETFrameTypeSequence"),
)
_OF_EVERY_KIND = ("original", "derived", "primary", "secondary")
_MAX_CHARACTERS = 24


def facts_of(place: Dataset) -> dict[str, str]:
    """Return the acquisition parameters in a header, or in the functional groups of a frame."""
    datasets = [place]
    for sequence in _SEQUENCES:
        with suppress(Exception):  # pydicom raises errors of any kind
            datasets += place.get(sequence) or []
    found = {prefix: _first(datasets, keywords) for prefix, keywords in FACTS.items()}
    found["b"] = found["b"] or _private_b_value(place)
    return {prefix: text for prefix, text in found.items() if text}


def _first(datasets: Sequence[Dataset], keywords: Sequence[str]) -> str:
    for keyword in keywords:
        for dataset in datasets:
            with suppress(Exception):
                if text := _text(dataset.get(keyword)):
                    return text
    return ""


def _text(value: Any) -> str:
    """Format a number, or the letters and digits of words without ORIGINAL and PRIMARY."""
    values = list(value) if isinstance(value, MultiValue | list) else [value]
    if isinstance(values[0], str):
        words = [re.sub(r"[^a-z0-9]", "", str(word).lower()) for word in values]
        return "-".join(word for word in words if word and word not in _OF_EVERY_KIND)[:_MAX_CHARACTERS].strip("-")
    return "" if value is None else f"{float(values[0]):.10g}"


def _private_b_value(dataset: Dataset) -> str:
    for creator, (tag, modulus) in _B_VALUES.items():
        with suppress(Exception):
            if tag in dataset and _creator(dataset, tag) in (creator, ""):
                value = dataset[tag].value
                first = value[0] if isinstance(value, MultiValue | list) else value
                return f"{float(first) % modulus:.10g}"
    return ""


def _creator(dataset: Dataset, tag: BaseTag) -> str:
    """Return the creator of a private element; empty if a de-identification removed it."""
    owner = dataset.get(Tag(tag.group, tag.element >> 8))
    return "" if owner is None else str(owner.value).strip()
