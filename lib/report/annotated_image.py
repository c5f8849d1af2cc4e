"""An annotated image, and what the network and the clicks make of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lib.annotations.mask_origin import MaskOrigin
from lib.annotations.store import Absence, Annotation, Answer
from lib.geometry.volume import Volume, VolumeError, load_volume
from lib.inference.click_masks import click_label_map, network_trust
from lib.inference.prediction import BrokenModelError, predict_probability
from lib.networks.checkpoint import TrainedModel
from lib.supervision.boxes import Box

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image of which annotators have said something.

    Attributes:
        path: None where the image is gone, or was never fetched from its archive.
        annotations: the clicks on its structures.
        absences: structures that are not in it.
        mask_origins: how each label of the final mask came about; None without one.
        unanswered: labels of the app that nobody has answered; where there are none, it counts as annotated.
    """

    image_id: str
    path: Path | None
    annotations: tuple[Annotation, ...]
    absences: tuple[Absence, ...]
    mask_origins: Mapping[str, MaskOrigin] | None
    unanswered: tuple[str, ...]

    @property
    def answered(self) -> datetime:
        """When the newest answer was given; long ago where there is a final mask only."""
        answers: tuple[Answer, ...] = (*self.annotations, *self.absences)
        return max((datetime.fromisoformat(a.created) for a in answers), default=datetime.min.replace(tzinfo=UTC))

    def volume(self) -> Volume:
        """Raises: VolumeError: it is gone, cannot be read, or is not the image that was clicked on."""
        if self.path is None:
            raise VolumeError(f"The image {self.image_id} is not in the folder.")
        volume = load_volume(self.path)
        if not all(annotation.geometry.is_close(volume.geometry) for annotation in self.annotations):
            raise VolumeError(f"The image {self.image_id} is not the one that was clicked on.")
        return volume

    def masks(self, volume: Volume, model: TrainedModel | None) -> Iterator[tuple[Annotation, np.ndarray]]:
        """Of each structure, (X, Y, Z) bool: what the clicks on it give now, with the network's help if it has trust.

        The network is asked once.
        """
        probability = None if model is None or network_trust(model) == 0 else _probability(model, volume)
        for annotation in self.annotations:
            yield annotation, _mask(volume, annotation, model, probability)


def _probability(model: TrainedModel, volume: Volume) -> np.ndarray | None:
    """(C, X, Y, Z) in [0, 1]; None where the network cannot be used on the image."""
    try:
        return predict_probability(model, volume)
    except (VolumeError, BrokenModelError) as error:
        logger.warning("%s The masks are made of the clicks alone.", error)
        return None


def _mask(
    volume: Volume, annotation: Annotation, model: TrainedModel | None, probability: np.ndarray | None
) -> np.ndarray:
    of_box, trust = None, 0.0
    if model is not None and probability is not None and annotation.label in model.spec.labels:
        of_label, trust = probability[model.spec.labels.index(annotation.label)], network_trust(model)

        def of_box(label: str, box: Box) -> np.ndarray:
            return of_label[box.slices]

    return click_label_map(volume, [annotation.points], {annotation.label: 1}, of_box, trust) > 0
