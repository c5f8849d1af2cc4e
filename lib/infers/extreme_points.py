"""The click task: six extreme points, or labels that are not in the image, in; a stored answer and a mask out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.annotations.click_requests import ClickRequestError, parse_click_request
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Absence, Annotation, AnnotationStore, Answer
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError
from lib.inference.click_masks import click_label_map, network_trust
from lib.inference.opened_images import OpenedImage
from lib.inference.prediction import BrokenModelError
from lib.inference.region_predictor import RegionPredictor
from lib.infers.answers import Stopwatch, write_mask
from lib.infers.published_model import PublishedModel
from lib.infers.requests import annotator_of
from lib.infers.stored_clicks import asks_for_stored_clicks, stored_clicks
from lib.networks.checkpoint import TrainedModel
from lib.supervision.boxes import Box

logger = logging.getLogger(__name__)

DESCRIPTION = "Click the six extreme points of the structure: leftmost, rightmost, front, back, lowest, highest"


class ExtremePointsInferTask(InferTask):
    """Stores the answers of a request, clicks and labels that are not in the image, and answers with a mask.

    A request for the stored clicks of an image stores nothing anew.

    Args:
        type: what viewers take it for; they show "deepedit" models among their point prompts.
        model: the trained network, which joins in as soon as there is one.
        predictor: of the network's opinion of what was clicked.
        store: where annotations are kept.
        on_annotation: called with the file name of each new annotation.
    """

    def __init__(
        self,
        type: InferType,
        model: PublishedModel,
        predictor: RegionPredictor,
        store: AnnotationStore,
        on_annotation: Callable[[str], None],
    ) -> None:
        labels = {label: index for index, label in enumerate(model.labels, start=1)}
        super().__init__(type=type, labels=labels, dimension=3, description=DESCRIPTION)
        self.model = model
        self.predictor = predictor
        self.store = store
        self.on_annotation = on_annotation

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The mask.

        Raises:
            HTTPException: 404, stored clicks are asked for and there are none; 422, clicks that are refused or an
                image that cannot be read; 507, disk full.
        """
        stopwatch = Stopwatch()
        try:
            image_id = request.get("image_id")
            image = self.predictor.images.open(Path(request["image"]), keep=bool(image_id))
            geometry = image.volume.geometry
            stopwatch.lap("load")
            repeated = asks_for_stored_clicks(request)
            if repeated:
                answers = stored_clicks(request, self.store, self.model.labels, geometry, image.checksum)
            else:
                answers = parse_click_request(request, self.model.labels, geometry)
        except (VolumeError, ClickRequestError) as error:
            raise HTTPException(422, str(error)) from error
        if image_id and not repeated:
            who = (geometry, annotator_of(request), image.checksum)
            self._save([Annotation.now(image_id, points, *who) for points in answers.structures])
            self._save([Absence.now(image_id, label, *who) for label in answers.absent])
        stopwatch.lap("store")
        mask, model = self._mask(image, answers.structures, self.model.current() if answers.structures else None)
        stopwatch.lap("segment")
        path = write_mask(mask, geometry, request)
        stopwatch.lap("write")
        return path, {
            "label_names": self.labels,
            "extreme_points": {points.label: _extremes(points, geometry) for points in answers.structures},
            "absent": answers.absent,
            "stored": bool(image_id),
            "stage": "cold_start" if model is None else "network",
            "model_version": None if model is None else model.version,
            "network_trust": None if model is None else network_trust(model),
            "latencies": stopwatch.latencies,
        }

    def _save(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            try:
                path = self.store.save(answer)
            except OSError as error:
                logger.error("The clicks of %s could not be stored: %s", answer.image_id, error)
                raise HTTPException(
                    507,
                    f"The clicks could not be stored ({error.strerror}). Make room on the server's disk, then retry.",
                ) from error
            self.on_annotation(path.name)

    def _mask(
        self, image: OpenedImage, structures: Sequence[ExtremePoints], model: TrainedModel | None
    ) -> tuple[np.ndarray, TrainedModel | None]:
        """The label map (X, Y, Z), and the network where it could be used; one without trust is not asked."""
        if model is None:
            return click_label_map(image.volume, structures, self.labels), None
        network = model

        def probability(label: str, box: Box) -> np.ndarray:
            return self.predictor.probability(network, image, box)[self.labels[label] - 1]

        try:
            mask = click_label_map(image.volume, structures, self.labels, probability, network_trust(model))
        except (VolumeError, BrokenModelError) as error:
            logger.error("%s The mask is made of the clicks alone.", error)
            return self._mask(image, structures, None)
        return mask, model


def _extremes(points: ExtremePoints, geometry: ImageGeometry) -> list[dict[str, Any]]:
    """The six extremes as understood, named by the end of the patient's body that each lies towards."""
    return [
        {
            "end": geometry.end_names[axis][end],
            "voxel": points.extremes_voxel[axis, end].tolist(),
            "lps_mm": geometry.voxel_to_lps(points.extremes_voxel[axis, end]).round(3).tolist(),
        }
        for axis in range(3)
        for end in range(2)
    ]
