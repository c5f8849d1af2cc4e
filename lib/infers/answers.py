"""Answers to inference requests: the mask as a file in the image's own geometry."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from monailabel.transform.writer import Writer

from lib.annotations.volume import Volume


def write_mask(mask: np.ndarray, volume: Volume, request: Mapping[str, Any]) -> str:
    """Writes a label map (X, Y, Z) on the grid of `volume`; the request says in which format.

    Returns:
        Path of a temporary file, which MONAI Label deletes when it has sent it.
    """
    data = {
        "pred": mask,
        "pred_meta_dict": {"affine": volume.geometry.affine_ras},
        "image_path": request["image"],
        "result_extension": request.get("result_extension") or ".nii.gz",
        "result_dtype": request.get("result_dtype") or "uint8",
        "result_compress": bool(request.get("result_compress", False)),
    }
    path, _ = Writer(label="pred", nibabel=True)(data)
    return str(path)


class Stopwatch:
    """Seconds spent in the named stages of an answer, in the order in which they end."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.latencies: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.latencies[stage] = round(now - self._last, 3)
        self.latencies["total"] = round(now - self._start, 3)
        self._last = now
