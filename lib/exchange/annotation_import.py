"""Import clicks from files into the annotation store: all of them, or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lib.annotations.click_requests import parse_click_request
from lib.annotations.image_identity import voxel_checksum
from lib.annotations.store import Annotation, AnnotationStore
from lib.exchange.click_records import ClickRecord, ImportRefusedError
from lib.exchange.study_images import StudyImages
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import load_volume


@dataclass(frozen=True)
class ImportPlan:
    """Plan of an import of clicks.

    Attributes:
        new: annotations to store.
        kept: annotations that are not stored, because their image and label are answered already.
    """

    new: tuple[Annotation, ...]
    kept: tuple[Annotation, ...]

    def carry_out(self, store: AnnotationStore) -> Iterable[Annotation]:
        """Store the new annotations and yield each one when it is on disk.

        Raises:
            OSError: the disk is full or the folder cannot be written; the same import can then be continued.
        """
        for annotation in self.new:
            store.save(annotation)
            yield annotation


def plan_import(
    records: Iterable[ClickRecord],
    images: StudyImages,
    labels: Sequence[str],
    store: AnnotationStore,
    annotator: str,
    *,
    overwrite: bool = False,
) -> ImportPlan:
    """Check every record as the server checks a click request.

    Args:
        labels: of the app.
        annotator: annotator of records without one.
        overwrite: replace existing answers, which are kept as history.

    Raises:
        ImportRefusedError: a record is refused; the sentences name its file, image and label.
    """
    checker = _Checker(images, labels, annotator)
    annotations: dict[tuple[str, str], Annotation] = {}
    refused = []
    for record in records:
        try:
            annotation = checker.annotation(record)
            key = (annotation.image_id, annotation.points.label)
            if key in annotations:
                raise ValueError("there are clicks for it in an earlier entry too; expected one.")
            annotations[key] = annotation
        except ValueError as error:
            wrong = str(error).removeprefix(f"Label {record.label!r}: ")
            refused.append(f"{record.source}: image {record.image!r}, label {record.label!r}: {wrong}")
    if refused:
        raise ImportRefusedError(refused)
    existing = set() if overwrite else {key for key in annotations if store.path(*key).exists()}
    return ImportPlan(
        new=tuple(annotation for key, annotation in annotations.items() if key not in existing),
        kept=tuple(annotation for key, annotation in annotations.items() if key in existing),
    )


class _Checker:
    def __init__(self, images: StudyImages, labels: Sequence[str], annotator: str) -> None:
        self.images = images
        self.labels = labels
        self.annotator = annotator
        self._images: dict[str, tuple[ImageGeometry, str]] = {}

    def annotation(self, record: ClickRecord) -> Annotation:
        """Convert a record.

        Raises:
            ValueError: the record is refused.
        """
        if record.label not in self.labels:
            known = ", ".join(self.labels)
            raise ValueError(f"the app's labels are {known}; name them with --labels, or the file's with --label.")
        image_id = self.images.id_of(record.image)
        if image_id is None:
            raise ValueError(f"there is no such image in {self.images.folder}.")
        geometry, checksum = self._image(image_id)
        if record.grid is not None and not record.grid.is_close(geometry):
            raise ValueError(
                f"the file is not on the grid of the image {self.images.paths[image_id].name}; resample it."
            )
        request = {record.label: [list(point) for point in record.points], "coordinates": record.coordinates}
        background = [list(point) for point in record.background]
        (points,) = parse_click_request({**request, "background": background}, self.labels, geometry).structures
        return Annotation.now(image_id, points, geometry, record.annotator or self.annotator, checksum)

    def _image(self, image_id: str) -> tuple[ImageGeometry, str]:
        """Return grid and checksum of an image."""
        if image_id not in self._images:
            volume = load_volume(self.images.paths[image_id])
            self._images[image_id] = volume.geometry, voxel_checksum(volume.array)
        return self._images[image_id]
