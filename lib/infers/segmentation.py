"""The automatic task: the trained network, without clicks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.geometry.volume import VolumeError, load_volume
from lib.infers.answers import Stopwatch, write_mask
from lib.infers.prediction import predict_probability
from lib.infers.published_model import PublishedModel
from lib.refinement.automatic_mask import crf_label_map, label_map


class SegmentationInferTask(InferTask):
    """Segments a scan with the newest published network.

    Args:
        test_time_crf: let the edges of the image decide where a structure ends (`crf_label_map`).
    """

    def __init__(self, model: PublishedModel, *, test_time_crf: bool) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels={label: index for index, label in enumerate(model.labels, start=1)},
            dimension=3,
            description="Segments without clicks, with the network learnt from extreme points",
        )
        self.model = model
        self.test_time_crf = test_time_crf

    def is_valid(self) -> bool:
        return True

    def get_path(self, validate: bool = True) -> str | None:
        return str(self.model.path) if self.model.path.exists() or not validate else None

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Raises: HTTPException: 409, no model yet; 422, an image that cannot be read."""
        stopwatch = Stopwatch()
        model = self.model.current()
        if model is None:
            raise HTTPException(
                409, "There is no trained model yet: click extreme points in a few studies and start the training."
            )
        try:
            volume = load_volume(request["image"])
            stopwatch.lap("load")
            probability = predict_probability(model, volume, self.model.device)
        except VolumeError as error:
            raise HTTPException(422, str(error)) from error
        if not np.isfinite(probability).all():
            raise HTTPException(409, f"Version {model.version} of the model is broken; roll back, or train again.")
        if self.test_time_crf:
            mask = crf_label_map(volume.array, probability, volume.geometry.spacing_mm)
        else:
            mask = label_map(probability)
        stopwatch.lap("segment")
        path = write_mask(mask, volume, request)
        stopwatch.lap("write")
        return path, {
            "label_names": self.labels,
            "stage": "network",
            "model_version": model.version,
            "latencies": stopwatch.latencies,
        }
