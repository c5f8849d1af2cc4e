"""Read clicks from point lists of 3D Slicer: markups JSON (`.mrk.json`)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from lib.exchange.click_records import ClickRecord, Coordinates, ImportRefusedError

EXTENSION = ".mrk.json"
_COORDINATE_SYSTEMS = {"LPS": "lps", "RAS": "ras"}
# Slicer numbers the points of a list: "lesion-1", "lesion-2", ...
_NUMBERED = re.compile(r"(?P<name>.+?)[-_ ]\d+")


def read_markups(
    path: Path, labels: Sequence[str], *, image: str | None = None, label: str | None = None
) -> list[ClickRecord]:
    """Read the point lists of a file, one record each.

    Args:
        path: its name is `IMAGE.mrk.json` or `IMAGE.LABEL.mrk.json` unless `image` is given.
        labels: of the app, to distinguish these two forms.
        image: id of the image.
        label: of all lists in the file; None takes it from the file's name, from the list's name, or from the names
            of the points ("lesion-1", "lesion-2", ...), whichever comes first.

    Raises:
        ImportRefusedError: not a markups file, not a point list, no coordinate system, or no label.
    """
    try:
        lists = _point_lists(path)
        named_image, named_label = _from_file_name(path, labels)
        return [
            ClickRecord(
                source=path.name,
                image=image or named_image,
                label=label or named_label or _label_of(points),
                points=tuple(_positions(points)),
                coordinates=_coordinates(points),
            )
            for points in lists
        ]
    except ValueError as error:
        raise ImportRefusedError([f"{path.name}: {error}"]) from error


def _point_lists(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read as JSON ({error}).") from error
    lists = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(lists, list) or not lists or not all(isinstance(points, dict) for points in lists):
        raise ValueError("holds no markups; expected a point list saved by 3D Slicer.")
    for points in lists:
        if points.get("type") != "Fiducial":
            raise ValueError(
                f"the markup is a {points.get('type')!r}; expected a point list, whose type is 'Fiducial'."
            )
    return lists


def _from_file_name(path: Path, labels: Sequence[str]) -> tuple[str, str | None]:
    name = path.name.removesuffix(EXTENSION)
    label = next((label for label in labels if name.endswith(f".{label}")), None)
    return (name, None) if label is None else (name.removesuffix(f".{label}"), label)


def _label_of(points: dict[str, Any]) -> str:
    if isinstance(points.get("name"), str) and points["name"]:
        return points["name"]
    numbered = [_NUMBERED.fullmatch(str(point.get("label", ""))) for point in _defined(points)]
    names = {match["name"] for match in numbered if match}
    if len(names) != 1 or None in numbered:
        raise ValueError("the structure has no name in the file; give it with --label.")
    return names.pop()


def _coordinates(points: dict[str, Any]) -> Coordinates:
    system, units = points.get("coordinateSystem"), points.get("coordinateUnits", "mm")
    if system not in _COORDINATE_SYSTEMS:
        raise ValueError(f"the coordinate system is {system!r}; expected LPS or RAS.")
    if units not in ("mm", ["mm", "mm", "mm"]):
        raise ValueError(f"the units are {units!r}; expected mm.")
    return cast(Coordinates, _COORDINATE_SYSTEMS[system])


def _defined(points: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the placed points; Slicer also stores points that were skipped or not yet placed."""
    control_points = points.get("controlPoints")
    if not isinstance(control_points, list) or not all(isinstance(point, dict) for point in control_points):
        raise ValueError("the point list has no points.")
    return [point for point in control_points if point.get("positionStatus", "defined") == "defined"]


def _positions(points: dict[str, Any]) -> list[tuple[float, float, float]]:
    positions = []
    for point in _defined(points):
        position = point.get("position")
        if not (
            isinstance(position, list) and len(position) == 3 and all(isinstance(p, (int, float)) for p in position)
        ):
            raise ValueError(f"the point {point.get('label')!r} is at {position!r}; expected three numbers.")
        positions.append((float(position[0]), float(position[1]), float(position[2])))
    return positions
