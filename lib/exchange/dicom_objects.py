"""Read DICOM objects that hold annotations: segmentations, structure sets, structured reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from lib.exchange.click_records import ImportRefusedError
from lib.exchange.seg_provenance import MODEL_NAME
from lib.exchange.study_images import StudyImages

MODALITIES = ("SEG", "RTSTRUCT", "SR")
KINDS = {
    SegmentationStorage: "SEG",
    RTStructureSetStorage: "RTSTRUCT",
    EnhancedSRStorage: "SR",
    ComprehensiveSRStorage: "SR",
    Comprehensive3DSRStorage: "SR",
}
_EXTENSIONS = (".dcm", ".seg", ".rtstruct", ".sr")


@dataclass(frozen=True, eq=False)
class Plane:
    """Position of the pixels of a frame.

    Attributes:
        corner_lps_mm: (3,) centre of the first pixel.
        column_step_mm, row_step_mm: (3,) from a pixel to the next column, and to the next row.
    """

    corner_lps_mm: np.ndarray
    column_step_mm: np.ndarray
    row_step_mm: np.ndarray

    @classmethod
    def of(cls, *places: Dataset) -> Plane:
        """Create from functional groups or headers, of which the first one with an attribute counts.

        Raises:
            ValueError: none contains position, orientation or spacing.
        """
        try:
            position = _first(places, "PlanePositionSequence", "ImagePositionPatient")
            orientation = _first(places, "PlaneOrientationSequence", "ImageOrientationPatient").reshape(2, 3)
            row_mm, column_mm = _first(places, "PixelMeasuresSequence", "PixelSpacing")
            return cls(position.reshape(3), orientation[0] * column_mm, orientation[1] * row_mm)
        except (AttributeError, TypeError, ValueError, StopIteration) as error:
            raise ValueError("does not say where its frames lie (position, orientation, pixel spacing).") from error

    def to_lps(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Convert columns and rows (N,), counted from the centre of the first pixel, to LPS mm (N, 3)."""
        return self.corner_lps_mm + columns[:, None] * self.column_step_mm + rows[:, None] * self.row_step_mm


@dataclass(frozen=True, eq=False)
class AnnotationObject:
    """Segmentation, structure set or structured report.

    Attributes:
        source: for messages, such as the name of its file.
        file_name: may name the image; empty for an object of an archive.
    """

    source: str
    file_name: str
    dataset: Dataset

    @property
    def kind(self) -> str:
        return KINDS[self.dataset.SOPClassUID]

    @property
    def is_own(self) -> bool:
        """True if it was written by this app."""
        return str(self.dataset.get("ManufacturerModelName", "")) == MODEL_NAME

    @property
    def annotator(self) -> str | None:
        """Person who made it; None if it names nobody."""
        names = [self.dataset.get(keyword) for keyword in ("ContentCreatorName", "ReviewerName", "OperatorsName")]
        names += [item.get("PersonName") for item in content_items(self.dataset) if concept_code(item) == "121008"]
        plain_names = (str(name).replace("^", " ").strip() for name in names if name)
        return next((name for name in plain_names if name), None)

    def facts(self) -> dict[str, str]:
        """Return kind, UID and maker, for the record of a mask that is made from it."""
        maker = [str(self.dataset.get(name, "")) for name in ("Manufacturer", "ManufacturerModelName")]
        maker.append(str(self.dataset.get("SoftwareVersions", "")))
        uid = str(self.dataset.get("SOPInstanceUID", ""))
        return {"kind": self.kind, "sop_instance_uid": uid, "made_by": " ".join(filter(None, maker))}

    def image_in(self, images: StudyImages, named: str | None = None) -> str | None:
        """Return the id of its image: by an explicit name, by the series that it refers to, or by its file name.

        Raises:
            ImportRefusedError: the series has several images.
        """
        if named is not None:
            return images.id_of(named)
        uids = referenced_series(self.dataset)
        found = [i for i in sorted(images.paths) if any(i == uid or i.startswith(f"{uid}_") for uid in uids)]
        if len(found) > 1:
            raise ImportRefusedError(
                [f"{self.source}: it may be of {', '.join(found[:8])}; name the image that it is of with --image."]
            )
        return found[0] if found else images.id_of(_stem(self.file_name))


@dataclass(frozen=True, eq=False)
class DicomFiles:
    """Content of DICOM files.

    Attributes:
        objects: objects with annotations.
        slices: headers of images without pixels, by SOP instance UID.
    """

    objects: list[AnnotationObject]
    slices: dict[str, Dataset]


def read_files(paths: Iterable[Path]) -> DicomFiles:
    """Read the DICOM files among the paths, and in the folders among them and their subfolders.

    Raises:
        ImportRefusedError: a path does not exist, a file is not DICOM or has no annotations, or a folder has none.
    """
    objects: list[AnnotationObject] = []
    slices: dict[str, Dataset] = {}
    refused: list[str] = []
    for path in paths:
        found = 0
        files = [path] if not path.is_dir() else sorted(p for p in path.rglob("*") if _is_visible(p, path))
        for file in files:
            try:
                header = pydicom.dcmread(file, stop_before_pixels=True)
                sop_class = header.get("SOPClassUID")
                if sop_class in KINDS:
                    objects.append(AnnotationObject(file.name, file.name, pydicom.dcmread(file)))
                    found += 1
                elif "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header:
                    slices[str(header.SOPInstanceUID)] = header
                elif file is path:
                    name = getattr(sop_class, "name", "no SOP class")
                    refused.append(f"{path}: it is of {name}; expected a SEG, an RTSTRUCT or an SR.")
            except Exception as error:  # pydicom raises errors of any kind
                if file is path:
                    what = "does not exist" if not path.exists() else f"cannot be read as DICOM ({_short(error)})"
                    refused.append(f"{path} {what}; expected a file or a folder of DICOM.")
        if path.is_dir() and not found:
            refused.append(f"The folder {path} holds no DICOM SEG, RTSTRUCT or SR.")
    if refused:
        raise ImportRefusedError(refused)
    return DicomFiles(objects, slices)


def referenced_series(dataset: Dataset) -> set[str]:
    """Return the UIDs of the series that an object refers to, at any depth."""
    uids = set()
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                if element.keyword.endswith("ReferencedSeriesSequence") and "SeriesInstanceUID" in item:
                    uids.add(str(item.SeriesInstanceUID))
                uids |= referenced_series(item)
    return uids


def _first(places: Iterable[Dataset], sequence: str, keyword: str) -> np.ndarray:
    """Return an attribute of the first functional group or header that has it."""
    candidates = (place[sequence].value[0] if place.get(sequence) else place for place in places)
    return next(np.array(place[keyword].value, dtype=float) for place in candidates if place.get(keyword) is not None)


def content_items(dataset: Dataset) -> Iterator[Dataset]:
    """Yield all items of a structured report, or below one of its items, at any depth."""
    for item in dataset.get("ContentSequence") or []:
        yield item
        yield from content_items(item)


def concept_code(item: Dataset) -> str:
    """Return the code of the concept of an item; empty without one."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def _stem(file_name: str) -> str:
    """Return IMAGE for `IMAGE.dcm` and `IMAGE.seg.dcm`."""
    while file_name.lower().endswith(_EXTENSIONS):
        file_name = file_name.rpartition(".")[0]
    return file_name


def _is_visible(path: Path, folder: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _short(error: Any) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
