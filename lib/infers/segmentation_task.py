"""Serve the automatic task: the trained network, without clicks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.annotations.names import label_values
from lib.geometry.volume import VolumeError
from lib.inference.automatic_mask import automatic_mask
from lib.inference.opened_images import OpenedImages
from lib.inference.prediction import BrokenModelError
from lib.infers.answers import Stopwatch, write_mask
from lib.infers.published_model import NO_MODEL, PublishedModel


class SegmentationInferTask(InferTask):
    """Task that segments a scan with the newest published network.

    Args:
        test_time_crf: refine masks by a dense CRF (`refined_label_map`); None to use the setting of the model.
    """

    def __init__(self, model: PublishedModel, images: OpenedImages, *, test_time_crf: bool | None) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=label_values(model.labels),
            dimension=3,
            description="Segments without clicks, with the network learnt from extreme points",
        )
        self.model = model
        self.images = images
        self.test_time_crf = test_time_crf

    def is_valid(self) -> bool:
        return True

    def get_path(self, validate: bool = True) -> str | None:
        return str(self.model.path) if self.model.path.exists() or not validate else None

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer a request: the path of the mask, and its metadata.

        Raises:
            HTTPException: 409, there is no model, or it is broken; 422, the image cannot be read.
        """
        stopwatch = Stopwatch()
        model = self.model.current()
        if model is None:
            raise HTTPException(409, NO_MODEL)
        try:
            image = self.images.open(Path(request["image"]), keep=bool(request.get("image_id")))
            prepared = self.images.on_grid(image, model.spec.spacing_mm)
            stopwatch.lap("load")
            mask = automatic_mask(model, image.volume, prepared, self.model.device, crf=self.test_time_crf)
        except VolumeError as error:
            raise HTTPException(422, str(error)) from error
        except BrokenModelError as error:
            raise HTTPException(409, str(error)) from error
        stopwatch.lap("segment")
        path = write_mask(mask, image.volume.geometry, request)
        stopwatch.lap("write")
        return path, {
            "label_names": self.labels,
            "stage": "network",
            "model_version": model.version,
            "model_sha256": model.sha256,
            "latencies": stopwatch.latencies,
        }
