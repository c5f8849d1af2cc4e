"""Store annotations durably: one JSON file per image and label, with clicks or "not in this image"."""

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
from lib.annotations.names import check_image_id, check_label
from lib.geometry.image_geometry import ImageGeometry

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_FILE_NAME = re.compile(r"[^.].*\..*\.json", re.DOTALL)


class AnnotationFileError(ValueError):
    """Error of an annotation file that cannot be read; its text names the file and the reason."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """Clicks on one structure of one image, with annotator and time.

    Attributes:
        created: ISO 8601 with a time zone.
        image_checksum: of the voxels that were clicked on (`voxel_checksum`); None if it was not recorded.
    """

    image_id: str
    points: ExtremePoints
    geometry: ImageGeometry
    annotator: str
    created: str
    image_checksum: str | None = None

    @classmethod
    def now(
        cls,
        image_id: str,
        points: ExtremePoints,
        geometry: ImageGeometry,
        annotator: str,
        image_checksum: str | None = None,
    ) -> Annotation:
        return cls(image_id, points, geometry, annotator, _now(), image_checksum)

    @property
    def label(self) -> str:
        return self.points.label

    def is_of(self, image_checksum: str | None) -> bool:
        """Tell whether it was made on the image with these voxels; an unknown checksum matches any."""
        return _same_image(self.image_checksum, image_checksum)


@dataclass(frozen=True, eq=False)
class Absence:
    """Annotation that a structure is not in an image.

    Attributes:
        label: name of the structure.
        geometry, created, image_checksum: as of an `Annotation`.
    """

    image_id: str
    label: str
    geometry: ImageGeometry
    annotator: str
    created: str
    image_checksum: str | None = None

    @classmethod
    def now(
        cls, image_id: str, label: str, geometry: ImageGeometry, annotator: str, image_checksum: str | None = None
    ) -> Absence:
        return cls(image_id, label, geometry, annotator, _now(), image_checksum)

    def is_of(self, image_checksum: str | None) -> bool:
        """Tell whether it was made on the image with these voxels; an unknown checksum matches any."""
        return _same_image(self.image_checksum, image_checksum)


Answer = Annotation | Absence
"""The annotation of one label in one image."""


def _same_image(one: str | None, other: str | None) -> bool:
    return None in (one, other) or one == other


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class AnnotationStore:
    """Store of the answer to each label of each image in a folder, as `<image id>.<label>.json`.

    A new answer replaces the old one, which is kept under `history` in the same file. An answer is flushed to disk and
    renamed into place before `save` returns, so that a reader or a restarted server finds the old or the new file.
    A lock orders the writes of threads and processes, so that the history contains each replaced answer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def save(self, answer: Answer) -> Path:
        """Store an answer.

        Raises:
            OSError: the disk is full or the folder cannot be written; the old file is then intact.
        """
        path = self.path(answer.image_id, answer.label)
        record = _record(answer)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            history = []
            if path.exists():
                try:
                    old = _read(path)
                    history = [*old["history"], old["current"]]
                except (AnnotationFileError, IsADirectoryError, PermissionError) as error:
                    kept = path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%S%f}.corrupt")
                    path.rename(kept)
                    logger.error("%s cannot be used (%s). It is kept as %s.", path.name, error, kept.name)
            content = {
                "schema_version": SCHEMA_VERSION,
                "image_id": answer.image_id,
                "label": answer.label,
                "geometry": _geometry_record(answer.geometry),
                "current": record,
                "history": history,
            }
            write_atomically(path, json.dumps(content, indent=1).encode())
        return path

    def revert(self, image_id: str, label: str) -> bool:
        """Delete the answer to a label, and restore the previous one.

        Returns:
            False if there was no previous answer.

        Raises:
            FileNotFoundError; AnnotationFileError; OSError: the file is then unchanged.
        """
        path = self.path(image_id, label)
        with FileLock(self.folder / ".lock"):
            content = _read(path)
            if not content["history"]:
                path.unlink()
                return False
            *content["history"], content["current"] = content["history"]
            write_atomically(path, json.dumps(content, indent=1).encode())
        return True

    def load(self, image_id: str, label: str) -> Answer:
        """Load the answer to a label.

        Raises:
            FileNotFoundError: there is none.
            AnnotationFileError: the file is not an annotation file of this schema.
        """
        return _answer(_read(self.path(image_id, label)))

    def load_file(self, path: Path) -> Answer:
        """Load the answer in a file of this store.

        Raises:
            ValueError: not the name of a file of this store.
            FileNotFoundError, AnnotationFileError: see `load`.
        """
        image_id, label = path.name.removesuffix(".json").rsplit(".", 1)
        return self.load(image_id, label)

    def history(self, image_id: str, label: str) -> list[dict[str, Any]]:
        """Return earlier answers, oldest first, as in the file."""
        return _read(self.path(image_id, label))["history"]

    def first_clicked(self, image_id: str, label: str, annotator: str) -> datetime | None:
        """Return when an annotator first clicked a label on the current image; None if they did not.

        Raises:
            FileNotFoundError, AnnotationFileError: see `load`.
        """
        content = _read(self.path(image_id, label))
        checksum = content["current"].get("image_checksum")
        moments = []
        for record in [*content["history"], content["current"]]:
            try:
                of_image = _same_image(record.get("image_checksum"), checksum)
                if of_image and "foreground" in record and record["annotator"] == annotator:
                    moments.append(datetime.fromisoformat(_with_time_zone(record["created"])))
            except (KeyError, TypeError, ValueError, AttributeError):
                continue  # the history of a file is not checked
        return min(moments, default=None)

    def __iter__(self) -> Iterator[Annotation]:
        """Iterate over the clicks among `answers`."""
        return (answer for answer in self.answers() if isinstance(answer, Annotation))

    def answers(self) -> Iterator[Answer]:
        """Yield every readable answer, by file name; unreadable files are logged and skipped."""
        for path in self._paths():
            try:
                yield _answer(_read(path))
            except AnnotationFileError as error:
                logger.error("%s It is left out.", error)
            except OSError as error:
                logger.error("%s cannot be read (%s). It is left out.", path.name, error.strerror)

    def paths_by_image(self) -> dict[str, list[Path]]:
        """Return the annotation files of each image that has any, readable or not."""
        paths: dict[str, list[Path]] = {}
        for path in self._paths():
            paths.setdefault(path.name.rsplit(".", 2)[0], []).append(path)
        return paths

    def paths_of(self, image_id: str) -> list[Path]:
        """Return the annotation files of an image, of all its labels."""
        return self.paths_by_image().get(image_id, [])

    def _paths(self) -> list[Path]:
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        return [self.folder / name for name in names if _FILE_NAME.fullmatch(name)]

    def path(self, image_id: str, label: str) -> Path:
        """Return the file of an image and a label.

        Raises:
            ValueError: an image id or a label that is not a plain file name.
        """
        check_label(label)
        check_image_id(image_id)
        return self.folder / f"{image_id}.{label}.json"


def _record(answer: Answer) -> dict[str, Any]:
    who = {"annotator": answer.annotator, "created": answer.created, "image_checksum": answer.image_checksum}
    if isinstance(answer, Absence):
        return {**who, "absent": True}
    points, geometry = answer.points, answer.geometry

    def clicks(points_voxel: np.ndarray) -> list[dict[str, list]]:
        lps_mm = geometry.voxel_to_lps(points_voxel)
        return [{"voxel": v.tolist(), "lps_mm": mm.tolist()} for v, mm in zip(points_voxel, lps_mm, strict=True)]

    return {**who, "foreground": clicks(points.foreground_voxel), "background": clicks(points.background_voxel)}


def _geometry_record(geometry: ImageGeometry) -> dict[str, Any]:
    return {
        "shape": list(geometry.shape),
        "affine_ras": np.asarray(geometry.affine_ras, dtype=float).tolist(),
        "spacing_mm": list(geometry.spacing_mm),
    }


def _read(path: Path) -> dict[str, Any]:
    """Read and check a file.

    Raises:
        AnnotationFileError: the content is damaged.
        OSError: the file cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise AnnotationFileError(f"{path.name} is not JSON ({error}).") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise AnnotationFileError(f"{path.name} has schema version {version!r}; expected {SCHEMA_VERSION}.")
    image_id, label = content.get("image_id"), content.get("label")
    if not isinstance(image_id, str) or not isinstance(label, str) or path.name != f"{image_id}.{label}.json":
        raise AnnotationFileError(f"{path.name} contains the annotation of another image or label.")
    try:
        check_image_id(image_id)
        check_label(label)
    except ValueError as error:
        raise AnnotationFileError(f"{path.name} has no valid image id or label. {error}") from error
    if not isinstance(content.get("current"), dict):
        raise AnnotationFileError(f"{path.name} has no entry 'current'.")
    history = content.get("history", [])
    content["history"] = history if isinstance(history, list) else [history]
    return content


def _answer(content: dict[str, Any]) -> Answer:
    image_id, label, current = content["image_id"], content["label"], content["current"]
    try:
        geometry = _geometry(content["geometry"])
        annotator = str(current["annotator"]).encode(errors="replace").decode()
        created = _with_time_zone(current["created"])
        checksum = None if current.get("image_checksum") is None else str(current["image_checksum"])
        if "absent" not in current:
            points = _points(label, current, geometry)
            return Annotation(image_id, points, geometry, annotator, created, checksum)
        if current["absent"] is not True or not {"foreground", "background"}.isdisjoint(current):
            raise ValueError("'absent' with clicks, or with another value than true")
        return Absence(image_id, label, geometry, annotator, created, checksum)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise AnnotationFileError(f"{image_id}.{label}.json is not an annotation ({error!r}).") from error


def _geometry(record: dict[str, Any]) -> ImageGeometry:
    affine_ras = np.array(record["affine_ras"], dtype=np.float64).reshape(4, 4)
    i, j, k = (int(n) for n in record["shape"])
    if not np.isfinite(affine_ras).all():
        raise ValueError("an affine that is not finite")
    return ImageGeometry((i, j, k), affine_ras)


def _points(label: str, record: dict[str, Any], geometry: ImageGeometry) -> ExtremePoints:
    foreground, background = (
        np.array([click["voxel"] for click in record[kind]], dtype=np.int64).reshape(-1, 3)
        for kind in ("foreground", "background")
    )
    if not geometry.contains(np.concatenate([foreground, background])).all():
        raise ValueError("clicks outside the image")
    return ExtremePoints.from_clicks(label, foreground, background)


def _with_time_zone(created: str) -> str:
    moment = datetime.fromisoformat(created)
    return created if moment.tzinfo is not None else moment.replace(tzinfo=UTC).isoformat(timespec="milliseconds")
