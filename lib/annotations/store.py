"""The durable store of click annotations: one JSON file per image and label."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from lib.annotations.atomic_write import write_atomically
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.geometry import ImageGeometry

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
LABEL_NAME = re.compile(r"[^\W_][\w \-]{0,63}")


class AnnotationFileError(ValueError):
    """An annotation file that cannot be read; its text names the file and what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """The clicks on one structure of one image, with who clicked and when."""

    image_id: str
    points: ExtremePoints
    geometry: ImageGeometry
    annotator: str
    created: str

    @classmethod
    def now(cls, image_id: str, points: ExtremePoints, geometry: ImageGeometry, annotator: str) -> Annotation:
        return cls(image_id, points, geometry, annotator, datetime.now(UTC).isoformat(timespec="milliseconds"))


class AnnotationStore:
    """Annotations in a folder, as `<image id>.<label>.json`.

    A new set of clicks replaces the old one, which stays readable under `history` in the same file.
    A set is flushed to disk and renamed into place before `save` returns, so a reader or a killed server
    finds either the old file or the new one. Threads and processes that save at once, a server and an import, wait
    for each other, so that each set that is replaced gets into the history.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def save(self, annotation: Annotation) -> Path:
        """Raises: OSError: the disk is full or the folder cannot be written; the old file is then intact."""
        path = self.path(annotation.image_id, annotation.points.label)
        record = _clicks_record(annotation)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            history = []
            if path.exists():
                try:
                    old = _read(path)
                    history = [*old["history"], old["current"]]
                except AnnotationFileError as error:
                    kept = path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%S%f}.corrupt")
                    path.rename(kept)
                    logger.error("%s It is kept as %s; the new clicks are saved.", error, kept.name)
            content = {
                "schema_version": SCHEMA_VERSION,
                "image_id": annotation.image_id,
                "label": annotation.points.label,
                "geometry": _geometry_record(annotation.geometry),
                "current": record,
                "history": history,
            }
            write_atomically(path, json.dumps(content, indent=1).encode())
        return path

    def load(self, image_id: str, label: str) -> Annotation:
        """Raises: FileNotFoundError; AnnotationFileError: not an annotation file of this schema."""
        return _annotation(_read(self.path(image_id, label)))

    def history(self, image_id: str, label: str) -> list[dict[str, Any]]:
        """Earlier click sets, oldest first, as they stand in the file."""
        return _read(self.path(image_id, label))["history"]

    def __iter__(self) -> Iterator[Annotation]:
        """Every readable annotation, by file name; an unreadable file is named in the log and left as it is."""
        for path in sorted(self.folder.glob("*.json")):
            try:
                yield _annotation(_read(path))
            except AnnotationFileError as error:
                logger.error("%s It is left out.", error)

    def path(self, image_id: str, label: str) -> Path:
        """The file of an image and a label.

        Raises:
            ValueError: an image id or a label that is not a plain file name.
        """
        if not LABEL_NAME.fullmatch(label):
            raise ValueError(f"label {label!r}; expected letters, digits, spaces, '-' and '_' only")
        if not image_id or image_id != os.path.basename(image_id) or "\0" in image_id or image_id in (".", ".."):
            raise ValueError(f"image id {image_id!r}; expected a name without any folder")
        return self.folder / f"{image_id}.{label}.json"


def _clicks_record(annotation: Annotation) -> dict[str, Any]:
    points, geometry = annotation.points, annotation.geometry

    def clicks(points_voxel: np.ndarray) -> list[dict[str, list]]:
        lps_mm = geometry.voxel_to_lps(points_voxel)
        return [{"voxel": v.tolist(), "lps_mm": mm.tolist()} for v, mm in zip(points_voxel, lps_mm, strict=True)]

    return {
        "annotator": annotation.annotator,
        "created": annotation.created,
        "foreground": clicks(points.foreground_voxel),
        "background": clicks(points.background_voxel),
    }


def _geometry_record(geometry: ImageGeometry) -> dict[str, Any]:
    return {
        "shape": list(geometry.shape),
        "affine_ras": np.asarray(geometry.affine_ras, dtype=float).tolist(),
        "spacing_mm": list(geometry.spacing_mm),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise AnnotationFileError(f"{path.name} is not JSON ({error}).") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise AnnotationFileError(f"{path.name} has schema version {version!r}; expected {SCHEMA_VERSION}.")
    return content


def _annotation(content: dict[str, Any]) -> Annotation:
    try:
        current = content["current"]
        foreground, background = (
            np.array([click["voxel"] for click in current[kind]], dtype=np.int64).reshape(-1, 3)
            for kind in ("foreground", "background")
        )
        affine_ras = np.array(content["geometry"]["affine_ras"], dtype=np.float64).reshape(4, 4)
        i, j, k = (int(n) for n in content["geometry"]["shape"])
        return Annotation(
            image_id=content["image_id"],
            points=ExtremePoints.from_clicks(content["label"], foreground, background),
            geometry=ImageGeometry((i, j, k), affine_ras),
            annotator=current["annotator"],
            created=current["created"],
        )
    except (KeyError, TypeError, ValueError) as error:
        name = f"{content.get('image_id')}.{content.get('label')}.json"
        raise AnnotationFileError(f"{name} is not an annotation ({error!r}).") from error
