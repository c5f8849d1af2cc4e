"""The click task: six extreme points in, a stored annotation and a mask out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.annotations.click_requests import ClickRequestError, parse_click_request
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation, AnnotationStore
from lib.annotations.volume import Volume, VolumeError, load_volume
from lib.infers.answers import Stopwatch, write_mask
from lib.infers.prediction import predict_probability
from lib.infers.published_model import PublishedModel
from lib.infers.requests import annotator_of
from lib.infers.stored_clicks import asks_for_stored_clicks, stored_clicks
from lib.networks.checkpoint import TrainedModel
from lib.refinement.cold_start import segment_from_clicks
from lib.refinement.label_map import merge_masks

logger = logging.getLogger(__name__)

DESCRIPTION = "Click the six extreme points of the structure: leftmost, rightmost, front, back, lowest, highest"
ListAnnotation = Callable[[str, str, dict[str, Any]], None]


class ExtremePointsInferTask(InferTask):
    """Stores the clicks of a request as annotations and answers with a mask.

    A request for the stored clicks of an image stores nothing anew.

    Args:
        type: what viewers take it for; they show "deepedit" models among their point prompts.
        model: the trained network, which joins in as soon as there is one.
        store: where annotations are kept.
        list_annotation: tells the datastore of a new annotation (image id, file name, info).
    """

    def __init__(
        self, type: InferType, model: PublishedModel, store: AnnotationStore, list_annotation: ListAnnotation
    ) -> None:
        labels = {label: index for index, label in enumerate(model.labels, start=1)}
        super().__init__(type=type, labels=labels, dimension=3, description=DESCRIPTION)
        self.model = model
        self.store = store
        self.list_annotation = list_annotation

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
            volume = load_volume(request["image"])
            stopwatch.lap("load")
            repeated = asks_for_stored_clicks(request)
            if repeated:
                structures = stored_clicks(request, self.store, self.model.labels, volume.geometry)
            else:
                structures = parse_click_request(request, self.model.labels, volume.geometry)
        except (VolumeError, ClickRequestError) as error:
            raise HTTPException(422, str(error)) from error
        image_id = request.get("image_id")
        if image_id and not repeated:
            self._save(image_id, structures, volume, annotator_of(request))
        stopwatch.lap("store")
        model = self.model.current()
        mask = self._segment(volume, structures, model)
        stopwatch.lap("segment")
        path = write_mask(mask, volume, request)
        stopwatch.lap("write")
        return path, {
            "label_names": self.labels,
            "extreme_points": {points.label: _extremes(points, volume) for points in structures},
            "stored": bool(image_id),
            "stage": "cold_start" if model is None else "network",
            "model_version": None if model is None else model.version,
            "network_trust": None if model is None else network_trust(model),
            "latencies": stopwatch.latencies,
        }

    def _save(self, image_id: str, structures: Sequence[ExtremePoints], volume: Volume, annotator: str) -> None:
        for points in structures:
            annotation = Annotation.now(image_id, points, volume.geometry, annotator)
            try:
                path = self.store.save(annotation)
                self.list_annotation(image_id, path.name, {"annotator": annotator, "created": annotation.created})
            except OSError as error:
                logger.error("The clicks of %s could not be stored: %s", image_id, error)
                raise HTTPException(
                    507,
                    f"The clicks could not be stored ({error.strerror}). Make room on the server's disk, then retry.",
                ) from error

    def _segment(self, volume: Volume, structures: Sequence[ExtremePoints], model: TrainedModel | None) -> np.ndarray:
        probability = None if model is None else predict_probability(model, volume, self.model.device)
        masks = {
            self.labels[points.label]: segment_from_clicks(
                volume.array,
                points,
                volume.geometry.spacing_mm,
                foreground_probability=None if probability is None else probability[self.labels[points.label] - 1],
                trust=0.0 if model is None else network_trust(model),
            )
            for points in structures
        }
        clicks = {self.labels[points.label]: points.foreground_voxel for points in structures}
        return merge_masks(masks, clicks, volume.geometry.spacing_mm)


def network_trust(model: TrainedModel) -> float:
    """None up to half agreement with annotators, full at full agreement; a network that was never judged has none.

    The reference of that agreement is the mask of the clicks alone, which a network can only improve once it comes
    close to it (docs/loop.md).
    """
    return max(0.0, 2 * (model.agreement or 0.0) - 1)


def _extremes(points: ExtremePoints, volume: Volume) -> list[dict[str, Any]]:
    """The six extremes as understood, named by the end of the patient's body that each lies towards."""
    geometry = volume.geometry
    return [
        {
            "end": geometry.end_names[axis][end],
            "voxel": points.extremes_voxel[axis, end].tolist(),
            "lps_mm": geometry.voxel_to_lps(points.extremes_voxel[axis, end]).round(3).tolist(),
        }
        for axis in range(3)
        for end in range(2)
    ]
