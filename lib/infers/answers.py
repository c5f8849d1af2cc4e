"""Write answers to inference requests: the mask as a file in the image's own geometry."""

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
    """Writes a label map (X, Y, Z) of an image; the request says in which format.

    MONAI Label's own writer is not used: ITK, which it loads for this, changes the working directory of the
    whole process for seconds while other requests are served.

    Returns:
        Path of a temporary file, which MONAI Label deletes when it has sent it.
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
    """Seconds spent in the named stages of an answer, in the order in which they end."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.latencies: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.latencies[stage] = round(now - self._last, 3)
        self.latencies["total"] = round(now - self._start, 3)
        self._last = now
