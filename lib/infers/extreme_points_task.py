"""Serve the click task: store six extreme points or absent labels, and answer with a mask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.annotations.click_requests import ClickRequestError, parse_click_request
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.given_masks import GivenMask, GivenMaskStore, clicks_digest
from lib.annotations.names import label_values
from lib.annotations.store import Absence, Annotation, AnnotationFileError, AnnotationStore, Answer
from lib.clickmask.context_box import context_box
from lib.clickmask.learnt import Learnt
from lib.geometry.boxes import Box
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError
from lib.inference.click_label_map import click_label_map, network_prior_weight
from lib.inference.opened_images import OpenedImage
from lib.inference.prediction import BrokenModelError
from lib.inference.region_predictor import RegionPredictor
from lib.inference.shape_atlases import ShapeAtlases
from lib.infers.answers import Stopwatch, write_mask
from lib.infers.published_model import PublishedModel
from lib.infers.requests import annotator_of
from lib.infers.stored_clicks import asks_for_stored_clicks, stored_clicks
from lib.networks.checkpoint import TrainedModel
from lib.server.http.disk_full import writing

logger = logging.getLogger(__name__)

DESCRIPTION = "Click the six extreme points of the structure: leftmost, rightmost, front, back, lowest, highest"


class ExtremePointsInferTask(InferTask):
    """Task that stores clicks and absent labels of a request, and answers with a mask.

    A request for the stored clicks of an image stores no clicks. The mask of an answer is stored for its annotator, who
    may accept it (`lib.server.masks.acceptance`).

    Args:
        type: type for viewers, which show "deepedit" models among their point prompts.
        model: published network, if there is one.
        predictor: of the network's probabilities around the clicks.
        given_masks: store of the masks of answers.
        atlases: made from accepted masks.
        on_annotation: called with the file name of each new annotation.
    """

    def __init__(
        self,
        type: InferType,
        model: PublishedModel,
        predictor: RegionPredictor,
        store: AnnotationStore,
        given_masks: GivenMaskStore,
        atlases: ShapeAtlases,
        on_annotation: Callable[[str], None],
    ) -> None:
        super().__init__(type=type, labels=label_values(model.labels), dimension=3, description=DESCRIPTION)
        self.model = model
        self.predictor = predictor
        self.store = store
        self.given_masks = given_masks
        self.atlases = atlases
        self.on_annotation = on_annotation

    def storing_in(
        self, store: AnnotationStore, given_masks: GivenMaskStore, on_annotation: Callable[[str], None]
    ) -> ExtremePointsInferTask:
        """Return a copy of the task that stores annotations elsewhere."""
        task = copy(self)
        task.store, task.given_masks, task.on_annotation = store, given_masks, on_annotation
        return task

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer a request: the path of the mask, and its metadata.

        Raises:
            HTTPException: 404, stored clicks are requested and there are none; 422, clicks are refused or the image
                cannot be read; 507, the disk is full.
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
        learnt = self.atlases.current()
        model = self.model.current() if answers.structures else None
        mask, model = self._mask(image, answers.structures, model, learnt)
        stopwatch.lap("segment")
        if image_id:
            self._keep(image_id, annotator_of(request), image, answers.structures, mask, model, new_clicks=not repeated)
        stopwatch.lap("keep")
        path = write_mask(mask, geometry, request)
        stopwatch.lap("write")
        return path, {
            "label_names": self.labels,
            "extreme_points": {points.label: _extremes(points, geometry) for points in answers.structures},
            "absent": answers.absent,
            "stored": bool(image_id),
            "stage": "cold_start" if model is None else "network",
            "model_version": None if model is None else model.version,
            "model_sha256": None if model is None else model.sha256,
            "network_prior_weight": None if model is None else network_prior_weight(model),
            "shapes": {of.label: learnt[of.label].atlas.count for of in answers.structures if of.label in learnt},
            "latencies": stopwatch.latencies,
        }

    def _save(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            with writing("The clicks"):
                path = self.store.save(answer)
            self.on_annotation(path.name)

    def _keep(
        self,
        image_id: str,
        annotator: str,
        image: OpenedImage,
        structures: Sequence[ExtremePoints],
        mask: np.ndarray,
        model: TrainedModel | None,
        *,
        new_clicks: bool,
    ) -> None:
        """Store the mask of each structure of a label map (X, Y, Z), unless newer clicks are stored."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        for points in structures:
            box = context_box(points, image.volume.geometry.shape)
            shown = mask[box.slices] == self.labels[points.label]
            digest = clicks_digest(points, image.checksum)
            of_model = (None, None) if model is None else (model.version, model.sha256)
            given = GivenMask(digest, box.start, shown, now, *of_model)
            with writing("The mask"):
                if self._is_newest(image_id, points):
                    self.given_masks.keep(image_id, points.label, annotator, given, new_clicks=new_clicks)

    def _is_newest(self, image_id: str, points: ExtremePoints) -> bool:
        """Tell whether these are the stored clicks: of parallel requests, the first may be answered last."""
        try:
            stored = self.store.load(image_id, points.label)
        except (FileNotFoundError, AnnotationFileError):  # deleted or damaged in the meantime
            return False
        return isinstance(stored, Annotation) and clicks_digest(stored.points, None) == clicks_digest(points, None)

    def _mask(
        self,
        image: OpenedImage,
        structures: Sequence[ExtremePoints],
        model: TrainedModel | None,
        learnt: Mapping[str, Learnt],
    ) -> tuple[np.ndarray, TrainedModel | None]:
        """Make the label map (X, Y, Z); also return the network if it was usable. At weight 0 it is not run."""
        if model is None:
            return click_label_map(image.volume, structures, self.labels, learnt=learnt), None
        network = model

        def probability(label: str, box: Box) -> np.ndarray:
            return self.predictor.probability(network, image, box)[self.labels[label] - 1]

        try:
            mask = click_label_map(
                image.volume, structures, self.labels, probability, network_prior_weight(model), learnt
            )
        except (VolumeError, BrokenModelError) as error:
            logger.error("%s The mask is made from the clicks alone.", error)
            return self._mask(image, structures, None, learnt)
        return mask, model


def _extremes(points: ExtremePoints, geometry: ImageGeometry) -> list[dict[str, Any]]:
    """Return the six extreme points with their direction in the patient."""
    return [
        {
            "end": geometry.end_names[axis][end],
            "voxel": points.extremes_voxel[axis, end].tolist(),
            "lps_mm": geometry.voxel_to_lps(points.extremes_voxel[axis, end]).round(3).tolist(),
        }
        for axis in range(3)
        for end in range(2)
    ]
