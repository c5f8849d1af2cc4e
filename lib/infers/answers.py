"""Write answers to inference requests: the mask as a file on the grid of the image."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume_files import write_nifti, write_nrrd
from lib.server.process.private_folder import new_temporary_file


def write_mask(mask: np.ndarray, geometry: ImageGeometry, request: Mapping[str, Any]) -> str:
    """Write a label map (X, Y, Z) of an image, in the format of the request.

    MONAI Label's own writer is not used, because it loads ITK, which changes the working directory of the whole
    process for seconds while other requests are served.

    Returns:
        Path of a temporary file, which MONAI Label deletes after it was sent.
    """
    extension = request.get("result_extension") or ".nii.gz"
    array = mask.astype(request.get("result_dtype") or "uint8", copy=False)
    descriptor, path = new_temporary_file(extension)
    os.close(descriptor)
    if extension == ".nrrd":
        write_nrrd(Path(path), array, geometry, compress=bool(request.get("result_compress", False)))
    else:
        write_nifti(Path(path), array, geometry, compress=extension == ".nii.gz")
    return path


class Stopwatch:
    """Seconds spent in the stages of an answer, by name, in their order."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.latencies: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.latencies[stage] = round(now - self._last, 3)
        self.latencies["total"] = round(now - self._start, 3)
        self._last = now
