"""Represent clicks read from a file, before they are checked against their image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from lib.geometry.image_geometry import ImageGeometry

Coordinates = Literal["voxel", "lps", "ras"]
COORDINATES: tuple[str, ...] = get_args(Coordinates)


class ImportRefusedError(ValueError):
    """Error of a refused import; `sentences` for the user each name a file, and the text has one per line."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("\n".join(self.sentences))


@dataclass(frozen=True, eq=False)
class ClickRecord:
    """Clicks on one structure of one image, as in a file.

    They become `ExtremePoints` once the image is known, which gives voxels and checks.

    Attributes:
        source: their place, such as "points.csv, lines 2 to 7".
        image: the image's id, or the name of its file.
        label: name of the structure.
        points: foreground clicks, three numbers each.
        background: background clicks.
        coordinates: voxel indices, or millimetres in LPS or RAS.
        grid: grid of the voxel indices, if the file has one; it has to be the image's.
        annotator: who clicked, if the file says so.
    """

    source: str
    image: str
    label: str
    points: tuple[tuple[float, float, float], ...]
    background: tuple[tuple[float, float, float], ...] = ()
    coordinates: Coordinates = "voxel"
    grid: ImageGeometry | None = None
    annotator: str | None = None
