"""Predict parts of opened images, and cache the last predictions for corrective clicks."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from lib.geometry.boxes import Box
from lib.geometry.parallel_grids import ParallelGrids
from lib.inference.opened_images import OpenedImage, OpenedImages
from lib.inference.prediction import Device, grid_box, predict_region, require_finite
from lib.networks.checkpoint import TrainedModel

LIMIT_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class _Region:
    """Probabilities (C, x, y, z) float16 of a box of the network's grid of an image."""

    model: weakref.ref[TrainedModel]
    image_checksum: str
    box: Box
    probability: torch.Tensor


class RegionPredictor:
    """Predictor of boxes of images, with a cache in memory.

    Args:
        limit_bytes: maximum size of the cache; the least recently used predictions are dropped.
    """

    def __init__(self, images: OpenedImages, device: Device, limit_bytes: int = LIMIT_BYTES) -> None:
        self.images = images
        self.device = device
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._regions: deque[_Region] = deque()

    def probability(self, model: TrainedModel, image: OpenedImage, box: Box) -> np.ndarray:
        """Return foreground probabilities (C, x, y, z) float32 of a box of the image, on its own voxels.

        Raises:
            VolumeError: the image cannot be resampled to the network's grid.
            BrokenModelError: the probabilities are not finite.
        """
        prepared = self.images.on_grid(image, model.spec.spacing_mm)
        grids = ParallelGrids.of(image.volume.geometry.affine_ras, prepared.affine)
        region = grid_box(grids, box, prepared.voxels.shape)
        probability = self._kept(model, image, region)
        if probability is None:
            probability = predict_region(model, prepared.voxels, region, self.device).half()
            require_finite(probability, model)
            self._keep(model, image, region, probability)
        return grids.interpolated(probability, region.start, box.start, box.stop).numpy()

    def _kept(self, model: TrainedModel, image: OpenedImage, box: Box) -> torch.Tensor | None:
        with self._lock:
            for region in self._regions:
                if (
                    region.model() is model
                    and region.image_checksum == image.checksum
                    and np.less_equal(region.box.start, box.start).all()
                    and np.greater_equal(region.box.stop, box.stop).all()
                ):
                    self._regions.remove(region)
                    self._regions.append(region)
                    return region.probability[(slice(None), *box.shifted(-np.array(region.box.start)).slices)]
        return None

    def _keep(self, model: TrainedModel, image: OpenedImage, box: Box, probability: torch.Tensor) -> None:
        """Cache a prediction, and drop those of other models."""
        if image.checksum is None:
            return
        region = _Region(weakref.ref(model), image.checksum, box, probability)
        with self._lock:
            self._regions = deque(kept for kept in self._regions if kept.model() is model)
            self._regions.append(region)
            while sum(kept.probability.nbytes for kept in self._regions) > self.limit_bytes:
                self._regions.popleft()
