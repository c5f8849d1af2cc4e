"""The click task: six extreme points in, a stored annotation and a mask out."""

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
from lib.annotations.image_identity import ImageIdentities, file_stamp
from lib.annotations.store import Annotation, AnnotationStore
from lib.geometry.volume import Volume, VolumeError, load_volume
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


class ExtremePointsInferTask(InferTask):
    """Stores the clicks of a request as annotations and answers with a mask.

    A request for the stored clicks of an image stores nothing anew.

    Args:
        type: what viewers take it for; they show "deepedit" models among their point prompts.
        model: the trained network, which joins in as soon as there is one.
        store: where annotations are kept.
        identities: knows images by their voxels.
        on_annotation: called with the file name of each new annotation.
    """

    def __init__(
        self,
        type: InferType,
        model: PublishedModel,
        store: AnnotationStore,
        identities: ImageIdentities,
        on_annotation: Callable[[str], None],
    ) -> None:
        labels = {label: index for index, label in enumerate(model.labels, start=1)}
        super().__init__(type=type, labels=labels, dimension=3, description=DESCRIPTION)
        self.model = model
        self.store = store
        self.identities = identities
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
            stamp = file_stamp(Path(request["image"]))
            volume = load_volume(request["image"])
            stopwatch.lap("load")
            repeated = asks_for_stored_clicks(request)
            image_id = request.get("image_id")
            checksum = self.identities.checksum(Path(request["image"]), volume.array, stamp) if image_id else None
            if repeated:
                structures = stored_clicks(request, self.store, self.model.labels, volume.geometry, checksum)
            else:
                structures = parse_click_request(request, self.model.labels, volume.geometry)
        except (VolumeError, ClickRequestError) as error:
            raise HTTPException(422, str(error)) from error
        if image_id and not repeated:
            annotator = annotator_of(request)
            self._save(
                [Annotation.now(image_id, points, volume.geometry, annotator, checksum) for points in structures]
            )
        stopwatch.lap("store")
        model, probability = self._prediction(volume)
        mask = self._segment(volume, structures, model, probability)
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

    def _save(self, annotations: Sequence[Annotation]) -> None:
        for annotation in annotations:
            try:
                path = self.store.save(annotation)
            except OSError as error:
                logger.error("The clicks of %s could not be stored: %s", annotation.image_id, error)
                raise HTTPException(
                    507,
                    f"The clicks could not be stored ({error.strerror}). Make room on the server's disk, then retry.",
                ) from error
            self.on_annotation(path.name)

    def _prediction(self, volume: Volume) -> tuple[TrainedModel | None, np.ndarray | None]:
        """The network and its probabilities (L, X, Y, Z); None without one, or where the scan is too large for it."""
        model = self.model.current()
        if model is None:
            return None, None
        try:
            probability = predict_probability(model, volume, self.model.device)
        except VolumeError as error:
            logger.warning("%s The mask is made of the clicks alone.", error)
            return None, None
        if not np.isfinite(probability).all():
            logger.error("Version %d of the model is broken. The mask is made of the clicks alone.", model.version)
            return None, None
        return model, probability

    def _segment(
        self,
        volume: Volume,
        structures: Sequence[ExtremePoints],
        model: TrainedModel | None,
        probability: np.ndarray | None,
    ) -> np.ndarray:
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
