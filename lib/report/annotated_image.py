"""An annotated image, and what the network and the clicks make of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lib.activelearning.uncertainty import class_entropies
from lib.annotations.store import Absence, Annotation
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
        unanswered: labels of the app that nobody has answered; where there are none, it counts as annotated.
        doubt: mean predictive entropy where the network sees a structure, in [0, 1]; None without a network.
        masks: by label, (X, Y, Z) as `np.packbits` gives it; of an image that is as it was clicked on.
        problem: why there are no masks.
    """

    image_id: str
    path: Path | None
    annotations: tuple[Annotation, ...]
    absences: tuple[Absence, ...]
    has_final_mask: bool
    unanswered: tuple[str, ...]
    doubt: float | None = None
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    problem: str | None = None

    def mask(self, annotation: Annotation) -> np.ndarray:
        """(X, Y, Z) bool: what the clicks on a structure give now, with the network's help if there is one."""
        shape = annotation.geometry.shape
        bits = np.unpackbits(self.masks[annotation.points.label], count=int(np.prod(shape)))
        return bits.reshape(shape).astype(bool)


def with_findings(image: AnnotatedImage, model: TrainedModel | None) -> AnnotatedImage:
    """The image with the network's doubt and the masks of its structures, from one prediction."""
    if image.path is None:
        return replace(image, problem=f"The image {image.image_id} is not in the folder.")
    try:
        volume = load_volume(image.path)
    except VolumeError as error:
        logger.warning("%s", error)
        return replace(image, problem=str(error))
    probability = None if model is None else _probability(model, volume)
    doubt = None if probability is None else float(class_entropies(probability).max())
    if not all(annotation.geometry.is_close(volume.geometry) for annotation in image.annotations):
        return replace(image, doubt=doubt, problem=f"The image {image.image_id} is not the one that was clicked on.")
    masks = {
        annotation.points.label: np.packbits(_mask(volume, annotation, model, probability))
        for annotation in image.annotations
    }
    return replace(image, doubt=doubt, masks=masks)


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
