"""Read clicks from DICOM reports, and masks from DICOM segmentations and structure sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset

from lib.exchange.click_records import ClickRecord, ImportRefusedError
from lib.exchange.dicom_masks import contour_voxels, segment_voxels
from lib.exchange.dicom_objects import AnnotationObject
from lib.exchange.dicom_points import measured_points
from lib.exchange.mask_import import StructureVoxels
from lib.exchange.study_images import StudyImages
from lib.geometry.volume import read_geometry

NOBODY = "imported"


@dataclass(frozen=True)
class NamedLabels:
    """Mapping from names in a DICOM object to labels of the app.

    Attributes:
        labels: of the app; case is ignored.
        only: label of all structures, whatever their names.
        renamed: label by name.
        skip_others: skip names without a label, instead of refusing them.
    """

    labels: Sequence[str]
    only: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    skip_others: bool = False

    def of(self, names: Sequence[str]) -> str | None:
        """Return the label of the first name that has one; None if the structure is to be skipped.

        Raises:
            ValueError: no name has a label.
        """
        if self.only is not None:
            return self.only
        known = {label.casefold(): label for label in self.labels}
        meant = (self.renamed.get(name, name).casefold() for name in names)
        label = next((known[name] for name in meant if name in known), None)
        if label is None and not self.skip_others:
            raise ValueError(
                f"the structure {' or '.join(map(repr, names)) or 'without a name'} is none of the app's labels, "
                f"{', '.join(self.labels)}; say which with --rename NAME=LABEL, or leave such out with "
                "--skip-other-labels."
            )
        return label


@dataclass(frozen=True)
class DicomImport:
    """Reader of DICOM objects.

    Attributes:
        images: of the project.
        image: id of the image of all objects; None takes it from each object.
        annotator: of all objects; None takes it from each object.
        skip_missing: skip objects of images that do not exist, instead of refusing them.
    """

    images: StudyImages
    labels: NamedLabels
    image: str | None = None
    annotator: str | None = None
    skip_missing: bool = False

    def read(
        self, objects: Iterable[AnnotationObject], slices: Mapping[str, Dataset]
    ) -> tuple[list[ClickRecord], list[StructureVoxels]]:
        """Read the clicks and the structures in objects.

        Args:
            slices: headers of the images that reports refer to, by SOP instance UID.

        Raises:
            ImportRefusedError: the errors of all objects.
        """
        records: list[ClickRecord] = []
        structures: list[StructureVoxels] = []
        refused: list[str] = []
        for one in objects:
            try:
                image = one.image_in(self.images, self.image)
                if image is None:
                    if self.skip_missing:
                        continue
                    raise ValueError(
                        f"it is of no image in {self.images.folder}; a series of an archive has to be opened once, and "
                        "of a file --image names the image."
                    )
                if one.kind == "SR":
                    records += self._records(one, image, slices)
                else:
                    structures += self._structures(one, image)
            except ImportRefusedError as error:
                refused += error.sentences
            except Exception as error:  # pydicom raises errors of any kind
                refused.append(f"{one.source}: {_sentence(error)}")
        if refused:
            raise ImportRefusedError(refused)
        return records, structures

    def _structures(self, one: AnnotationObject, image: str) -> list[StructureVoxels]:
        geometry = read_geometry(self.images.paths[image])
        read = segment_voxels if one.kind == "SEG" else contour_voxels
        annotator = self.annotator or one.annotator or NOBODY
        found = {name: (self.labels.of([name]), voxels) for name, voxels in read(one.dataset, geometry).items()}
        return [
            StructureVoxels(one.source, image, label, voxels, annotator, {**one.facts(), "name": name})
            for name, (label, voxels) in found.items()
            if label is not None
        ]

    def _records(self, one: AnnotationObject, image: str, slices: Mapping[str, Dataset]) -> list[ClickRecord]:
        """Return one record per label, with the points of all its groups."""
        points: dict[str, list[np.ndarray]] = {}
        for names, lps_mm in measured_points(one.dataset, slices):
            if (label := self.labels.of(names)) is not None:
                points.setdefault(label, []).append(lps_mm)
        annotator = self.annotator or one.annotator
        return [
            ClickRecord(
                one.source,
                image,
                label,
                tuple((float(x), float(y), float(z)) for x, y, z in np.unique(np.concatenate(found), axis=0)),
                coordinates="lps",
                annotator=annotator,
            )
            for label, found in points.items()
        ]


def _sentence(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return f"it is not valid DICOM ({type(error).__name__}: {str(error)[:120]})."
