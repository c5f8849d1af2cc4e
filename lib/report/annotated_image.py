"""Collect the annotations of an image, and make the masks of its structures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from lib.annotations.completeness import unanswered_labels
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.mask_file import MaskRecord
from lib.annotations.mask_origin import MaskOrigin, acceptances, origins
from lib.annotations.moments import LONG_AGO, moment_of
from lib.annotations.store import Absence, Annotation, Answer
from lib.geometry.boxes import Box
from lib.geometry.volume import Volume, VolumeError, load_volume
from lib.inference.click_label_map import click_label_map, network_prior_weight
from lib.inference.prediction import BrokenModelError, predict_probability
from lib.networks.checkpoint import TrainedModel
from lib.report.listed_studies import ListedStudy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinalMask:
    """Final mask of an image.

    Attributes:
        record: None if the mask cannot be read.
        load: returns the label map with the app's values; raises MaskError.
    """

    record: MaskRecord | None
    load: Callable[[], Volume]

    @property
    def origins(self) -> Mapping[str, MaskOrigin]:
        """Origin of each label that it covers."""
        return {} if self.record is None else origins(self.record)


@dataclass(frozen=True)
class LabelRow:
    """State of one structure in an image, in words; `annotator` and `created` (ISO 8601) may be empty."""

    label: str
    status: str
    annotator: str = ""
    created: str = ""


@dataclass(frozen=True)
class StructureMask:
    """Mask of one structure, (X, Y, Z) bool, with its clicks; None if it has no clicks."""

    row: LabelRow
    mask: np.ndarray
    points: ExtremePoints | None


@dataclass(frozen=True)
class AnnotatedImage:
    """Image with annotations.

    Attributes:
        study: row in the list of studies; None if the image is not listed any more.
        labels: labels of the app.
        annotations: clicks on its structures.
        absences: structures that are marked as absent.
        final: final mask; None if it has none.
        skip: who skipped it and why; None if it is not skipped.
    """

    image_id: str
    study: ListedStudy | None
    labels: tuple[str, ...]
    annotations: tuple[Annotation, ...] = ()
    absences: tuple[Absence, ...] = ()
    final: FinalMask | None = None
    skip: str | None = None

    @property
    def name(self) -> str:
        return self.image_id if self.study is None else self.study.name

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Unanswered labels of the app; without any, the image counts as annotated."""
        in_store = [answer.label for answer in self._answers]
        return unanswered_labels(self.labels, in_store, self.final.origins if self.final else ())

    @property
    def state(self) -> str:
        if self.skip is not None:
            return "skipped"
        settled = {*(self.final.origins if self.final else ()), *(absence.label for absence in self.absences)}
        return "final" if settled >= set(self.labels) else "annotated" if not self.unanswered else "begun"

    @property
    def _answers(self) -> tuple[Answer, ...]:
        return (*self.annotations, *self.absences)

    @property
    def answered(self) -> datetime:
        """Time of the latest answer; `LONG_AGO` if no time is recorded."""
        times = [answer.created for answer in self._answers]
        if self.final is not None and self.final.record is not None:
            times.append(self.final.record.created)
        return max(map(moment_of, times), default=LONG_AGO)

    def rows(self) -> list[LabelRow]:
        """Return a row for each label of the app, and for other labels with annotations."""
        of_final = self.final.origins if self.final is not None else {}
        answered = [*of_final, *(answer.label for answer in self._answers)]
        rows = [self._row(label) for label in dict.fromkeys([*self.labels, *answered])]
        unreadable = self.final is not None and self.final.record is None
        return [*rows, LabelRow("", "final mask that cannot be read")] if unreadable else rows

    def _row(self, label: str) -> LabelRow:
        clicks = next((_clicks(annotation) for annotation in self.annotations if annotation.label == label), "")
        record = self.final.record if self.final is not None else None
        if record is not None and self.final is not None and label in self.final.origins:
            origin = f"final mask, {self.final.origins[label]}"
            who = {"annotator": record.annotator, "created": record.created, **acceptances(record).get(label, {})}
            status = f"{origin}; {clicks}" if clicks else origin
            return LabelRow(label, status, str(who["annotator"]), str(who["created"]))
        answer = next((answer for answer in self._answers if answer.label == label), None)
        if answer is None:
            return LabelRow(label, "open")
        return LabelRow(label, clicks or "not in this scan", answer.annotator, answer.created)

    def volume(self) -> Volume:
        """Read the image.

        Raises:
            VolumeError: it is missing, cannot be read, or is not the image that was clicked on.
        """
        if self.study is None:
            raise VolumeError(f"{self.name} is not among the studies any more.")
        if self.study.path is None:
            raise VolumeError(f"{self.name} is in the archive, and the server has no copy of it to draw.")
        volume = load_volume(self.study.path)
        if not all(annotation.geometry.is_close(volume.geometry) for annotation in self.annotations):
            raise VolumeError(f"{self.name} is not the image that was clicked on.")
        return volume

    def masks(self, volume: Volume, model: TrainedModel | None) -> Iterator[StructureMask]:
        """Yield the final mask of each structure, or its click mask, in which a network has its prior weight.

        The network predicts once, and only if a structure has clicks and no final mask.

        Raises:
            VolumeError: the final mask is of another image.
            MaskError: the final mask cannot be read.
        """
        points = {annotation.label: annotation.points for annotation in self.annotations}
        final = self.final.load() if self.final is not None and self.final.record is not None else None
        if final is not None and not final.geometry.is_close(volume.geometry):
            raise VolumeError(f"The final mask of {self.name} is not of this image.")
        of_final = self.final.origins if self.final is not None else {}
        to_make = [annotation for annotation in self.annotations if annotation.label not in of_final]
        wants_network = bool(to_make) and model is not None and network_prior_weight(model) > 0
        probability = _probability(model, volume) if wants_network and model is not None else None
        for n, label in enumerate(self.labels, start=1):
            if final is not None and label in of_final and (mask := final.array == n).any():
                yield StructureMask(self._row(label), mask, points.get(label))
        for annotation in to_make:
            mask = _mask(volume, annotation, model, probability)
            yield StructureMask(self._row(annotation.label), mask, annotation.points)


def _clicks(annotation: Annotation) -> str:
    on_it, beside = len(annotation.points.foreground_voxel), len(annotation.points.background_voxel)
    return f"{on_it} clicks on it" + (f", {beside} beside it" if beside else "")


def _probability(model: TrainedModel, volume: Volume) -> np.ndarray | None:
    """Predict probabilities (C, X, Y, Z) in [0, 1]; None if the network cannot be used on the image."""
    try:
        return predict_probability(model, volume)
    except (VolumeError, BrokenModelError) as error:
        logger.warning("%s The masks are made of the clicks alone.", error)
        return None


def _mask(
    volume: Volume, annotation: Annotation, model: TrainedModel | None, probability: np.ndarray | None
) -> np.ndarray:
    of_box, prior_weight = None, 0.0
    if model is not None and probability is not None and annotation.label in model.spec.labels:
        of_label, prior_weight = probability[model.spec.labels.index(annotation.label)], network_prior_weight(model)

        def of_box(label: str, box: Box) -> np.ndarray:
            return of_label[box.slices]

    return click_label_map(volume, [annotation.points], {annotation.label: 1}, of_box, prior_weight) > 0
