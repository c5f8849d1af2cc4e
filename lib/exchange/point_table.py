"""Read clicks from a CSV table, one point a row."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lib.exchange.click_records import COORDINATES, ClickRecord, Coordinates, ImportRefusedError

REQUIRED_COLUMNS = ("image", "label", "x", "y", "z")
OPTIONAL_COLUMNS = ("coordinates",)
BACKGROUND = "background"


@dataclass(frozen=True)
class _Row:
    line: int
    image: str
    label: str
    point: tuple[float, float, float]
    coordinates: str


def read_point_table(path: Path) -> list[ClickRecord]:
    """Read the clicks of a CSV file, one record per image and label.

    The header names the columns, in any order: `image` (id or file name), `label`, `x`, `y`, `z`, and, if the
    numbers are not voxel indices, `coordinates`: voxel, lps or ras. Rows with the label `background` are clicks
    outside of all structures of their image.

    Raises:
        ImportRefusedError: no such file, wrong columns, or invalid rows; each sentence names the line.
    """
    try:
        # Spreadsheets write a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(_rows(path.name, csv.DictReader(file, skipinitialspace=True)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImportRefusedError([f"{path.name}: cannot be read as CSV in UTF-8 ({error})."]) from error
    if not rows:
        raise ImportRefusedError([f"{path.name}: holds no points; expected a row for each, below the header."])
    return list(_records(path.name, rows))


def _rows(name: str, reader: csv.DictReader) -> Iterator[_Row]:
    columns = reader.fieldnames or ()
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    unknown = [column for column in columns if column not in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)]
    if missing or unknown:
        what = f"has no column {missing[0]!r}" if missing else f"has a column {unknown[0]!r}"
        raise ImportRefusedError(
            [f"{name}, line 1: the header {what}; expected {','.join(REQUIRED_COLUMNS)} and, if need be, coordinates."]
        )
    refused = []
    for cells in reader:
        try:
            yield _row(cells, reader.line_num)
        except ValueError as error:
            refused.append(f"{name}, line {reader.line_num}: {error}")
    if refused:
        raise ImportRefusedError(refused)


def _row(cells: dict[str, str | None], line: int) -> _Row:
    if None in cells or None in cells.values():
        raise ValueError("the row has another number of cells than the header; expected one for each column.")
    text = {column: (cell or "").strip() for column, cell in cells.items()}
    for column in ("image", "label"):
        if not text[column]:
            raise ValueError(f"the {column} is missing.")
    coordinates = text.get("coordinates") or "voxel"
    if coordinates not in COORDINATES:
        raise ValueError(f"the coordinates are {coordinates!r}; expected {', '.join(COORDINATES)}.")
    x, y, z = (_number(column, text[column]) for column in "xyz")
    return _Row(line, text["image"], text["label"], (x, y, z), coordinates)


def _number(column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{column} is {text!r}; expected a number.") from None


def _records(name: str, rows: list[_Row]) -> Iterator[ClickRecord]:
    structures: dict[tuple[str, str], list[_Row]] = defaultdict(list)
    for row in rows:
        structures[row.image, row.label].append(row)
    for (image, label), members in structures.items():
        outside = structures.get((image, BACKGROUND), [])
        source = f"{name}, {_lines(members)}"
        for row in (*members, *outside):
            if row.coordinates != members[0].coordinates:
                raise ImportRefusedError(
                    [
                        f"{name}, line {row.line}: the coordinates are {row.coordinates!r}, and in line "
                        f"{members[0].line} {members[0].coordinates!r}; expected the same for all points of an image."
                    ]
                )
        if label != BACKGROUND:
            yield ClickRecord(
                source,
                image,
                label,
                tuple(row.point for row in members),
                tuple(row.point for row in outside),
                cast(Coordinates, members[0].coordinates),
            )
        elif not any(other != BACKGROUND for of, other in structures if of == image):
            raise ImportRefusedError([f"{source}: image {image!r} has background points only; add its structures."])


def _lines(rows: list[_Row]) -> str:
    first, last = rows[0].line, rows[-1].line
    return f"line {first}" if first == last else f"lines {first} to {last}"
