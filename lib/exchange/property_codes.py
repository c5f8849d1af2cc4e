"""Code structures by a terminology such as SNOMED CT (DICOM PS3.16)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

TISSUE = Code("85756007", "SCT", "Tissue")
_DICTIONARY: Mapping[str, Any] = concepts  # scheme, keyword, value: meaning and groups
_FORM = re.compile(r"([A-Za-z0-9][A-Za-z0-9_]{0,15}):([A-Za-z0-9._\-]{1,16})(?::([^\\:=,\x00-\x1f]{1,64}))?")
# The context groups of DICOM PS3.16 for segmented properties, and the category of each (CID 7150). Only group 4266
# contains a lesion in general.
_CATEGORIES = {
    7191: TISSUE,
    7192: Code("123037004", "SCT", "Anatomical Structure"),
    7194: Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    4266: Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    7193: Code("260787004", "SCT", "Physical object"),
    7195: Code("246464006", "SCT", "Function"),
    7196: Code("309825002", "SCT", "Spatial and Relational Concept"),
    7197: Code("91720002", "SCT", "Body Substance"),
    7198: Code("105590001", "SCT", "Substance"),
}


def property_code(text: str) -> Code:
    """Parse a code such as `SCT:52988006`, or `SCHEME:VALUE:MEANING`.

    Raises:
        ValueError: the text is in another form, or has no meaning and is not in the dictionary of DICOM.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not a code; expected SCHEME:VALUE, such as SCT:52988006, or SCHEME:VALUE:MEANING"
        )
    scheme, value, meaning = match.groups()
    meaning = (meaning or "").strip() or _meaning(scheme, value)
    if meaning is None:
        raise ValueError(f"the code {text!r} is not in the dictionary of DICOM; correct it, or give {text}:MEANING")
    return Code(value, scheme, meaning)


def code_text(code: Code) -> str:
    """Format a code for `property_code`."""
    return f"{code.scheme_designator}:{code.value}:{code.meaning}"


def codes_from(texts: Mapping[str, str]) -> dict[str, Code]:
    """Return the code of each label.

    Raises:
        ValueError: see `property_code`.
    """
    return {label: property_code(text) for label, text in texts.items()}


def category(code: Code) -> Code:
    """Return the category of a code (anatomy, abnormality, ...); tissue if the dictionary of DICOM has none."""
    keywords = {
        keyword for keyword, found in _DICTIONARY.get(code.scheme_designator, {}).items() if code.value in found
    }
    groups = (group for group in _CATEGORIES if keywords & set(cid_concepts[group].get(code.scheme_designator, ())))
    return _CATEGORIES[group] if (group := next(groups, None)) else TISSUE


def _meaning(scheme: str, value: str) -> str | None:
    """Return the shortest meaning in the dictionary of DICOM, preferring those of a context group; None without any."""
    found = [entry[value] for entry in _DICTIONARY.get(scheme, {}).values() if value in entry]
    meanings = [(not groups, len(meaning), meaning) for meaning, groups in found]
    return min(meanings)[2] if meanings else None
