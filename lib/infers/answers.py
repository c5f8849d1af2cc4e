"""Answers to inference requests: the mask as a file in the image's own geometry."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from lib.data.grid import to_scalar_image
from lib.geometry.volume import Volume
from lib.server.private_folder import new_temporary_file


def write_mask(mask: np.ndarray, volume: Volume, request: Mapping[str, Any]) -> str:
    """Writes a label map (X, Y, Z) on the grid of `volume`; the request says in which format.

    MONAI Label's own writer is not used: ITK, which it loads for this, changes the working directory of the
    whole process for seconds while other requests are served.

    Returns:
        Path of a temporary file, which MONAI Label deletes when it has sent it.
    """
    extension = request.get("result_extension") or ".nii.gz"
    array = mask.astype(request.get("result_dtype") or "uint8")
    descriptor, path = new_temporary_file(extension)
    os.close(descriptor)
    if extension == ".nrrd":
        compress = bool(request.get("result_compress", False))
        sitk.WriteImage(to_scalar_image(array, volume.geometry).as_sitk(), path, compress)
    else:
        nib.save(nib.Nifti1Image(array, volume.geometry.affine_ras), path)
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
