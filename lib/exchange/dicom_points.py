"""Read points and lines of measurements from DICOM structured reports (PS3.16 TID 1500)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydicom.dataset import Dataset

from lib.exchange.dicom_objects import Plane, concept_code, content_items

_GROUP, _TRACKING_IDENTIFIER, _FINDING = "125007", "112039", "121071"
_SITES = ("363698007", "G-C0E3")
_POINT_TYPES = ("POINT", "MULTIPOINT", "POLYLINE")


def measured_points(dataset: Dataset, slices: Mapping[str, Dataset]) -> list[tuple[list[str], np.ndarray]]:
    """Return possible names and the points (N, 3) in LPS mm of each measurement group with coordinates.

    The names are its tracking identifier, its finding, and the finding site, in this order. Points are those of
    SCOORD3D and SCOORD items of the types POINT, MULTIPOINT and POLYLINE, such as the two ends of a length.

    Args:
        slices: headers of the images of SCOORD items, by SOP instance UID.

    Raises:
        ValueError: no such report, coordinates of another type, or coordinates on an image that is not in `slices`.
    """
    groups = [item for item in content_items(dataset) if concept_code(item) == _GROUP]
    if not groups:
        raise ValueError("holds no measurement groups; expected a report by TID 1500.")
    found = []
    for group in groups:
        points = [
            _points(item, slices) for item in content_items(group) if item.get("ValueType") in ("SCOORD", "SCOORD3D")
        ]
        if points:
            found.append((_names(group), np.unique(np.concatenate(points), axis=0)))
    return found


def _points(item: Dataset, slices: Mapping[str, Dataset]) -> np.ndarray:
    kind = str(item.get("GraphicType"))
    if kind not in _POINT_TYPES:
        raise ValueError(f"holds coordinates of type {kind}; expected {', '.join(_POINT_TYPES)}.")
    numbers = np.array(item.GraphicData, dtype=float)
    if item.ValueType == "SCOORD3D":
        return numbers.reshape(-1, 3)
    columns, rows = numbers.reshape(-1, 2).T
    # SCOORD counts from the corner of the first pixel, not from its centre.
    return _plane(item, slices).to_lps(columns - 0.5, rows - 0.5)


def _plane(item: Dataset, slices: Mapping[str, Dataset]) -> Plane:
    """Return the plane of the frame that a SCOORD item refers to."""
    image = next((child for child in item.get("ContentSequence") or [] if child.get("ValueType") == "IMAGE"), None)
    if image is None:
        raise ValueError("has coordinates without a reference to their image.")
    reference = image.ReferencedSOPSequence[0]
    header = slices.get(str(reference.ReferencedSOPInstanceUID))
    if header is None:
        raise ValueError(
            "holds coordinates on an image whose file is not there; give the files of its series too, or read the "
            "report from the archive."
        )
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        return Plane.of(header)
    number = reference.get("ReferencedFrameNumber") or 1
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return Plane.of(frames[int(number) - 1], shared, header)


def _names(group: Dataset) -> list[str]:
    items = list(group.get("ContentSequence") or [])
    names = [str(item.get("TextValue", "")) for item in items if concept_code(item) == _TRACKING_IDENTIFIER]
    for concepts in ((_FINDING,), _SITES):
        for item in items:
            if concept_code(item) in concepts and item.get("ConceptCodeSequence"):
                names.append(str(item.ConceptCodeSequence[0].get("CodeMeaning", "")))
    return [name.strip() for name in names if name.strip()]
