"""Compile kernels and answer a first request at the start, so that annotators do not wait."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.click_mask import segment_from_clicks
from lib.compile_kernels import compile_kernels
from lib.geometry.volume import load_volume
from lib.infers.answers import write_mask

logger = logging.getLogger(__name__)


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache, and answer one small request.

    A failure is logged; the server starts nevertheless.
    """
    logger.info("Getting ready for clicks. If the kernels are not compiled yet, this takes up to a minute.")
    start = time.perf_counter()
    try:
        compile_kernels()
        _answer_once()
    except Exception:
        logger.exception("The server could not get ready for clicks; the first ones take longer.")
    else:
        logger.info("Ready for clicks after %.1f s.", time.perf_counter() - start)


def _answer_once() -> None:
    clicks = np.array([[2, 8, 8], [13, 8, 8], [8, 2, 8], [8, 13, 8], [8, 8, 2], [8, 8, 13]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warm_up.nii.gz"
        nib.save(nib.Nifti1Image(np.random.default_rng(0).random((16, 16, 16), dtype=np.float32), np.eye(4)), path)
        volume = load_volume(path)
        points = ExtremePoints.from_clicks("warm_up", clicks)
        mask = segment_from_clicks(volume.array, points, volume.geometry.spacing_mm)
        for extension in (".nrrd", ".nii.gz"):
            Path(write_mask(mask.astype(np.uint8), volume.geometry, {"result_extension": extension})).unlink()
