"""The installation compiles all kernels for all types of arrays of requests and trainings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Images are in Fortran order, like those of `load_volume`.
REQUESTS_AND_TRAINING = """
import numpy as np
import torch
from lib.annotations.extreme_points import ExtremePoints
from lib.inference.dense_crf import mean_field
from lib.losses.crf import CRFLoss
from lib.clickmask.click_mask import segment_from_clicks
from lib.supervision.geodesics import batch_extreme_point_geodesics

rng = np.random.default_rng(0)
image = np.asfortranarray(rng.random((40, 36, 20), dtype=np.float32))
clicks = np.array([[5, 18, 9], [34, 17, 8], [20, 4, 9], [21, 30, 10], [20, 18, 3], [19, 17, 16]])
points = ExtremePoints.from_clicks("lesion", clicks)
segment_from_clicks(image, points, (1.0, 1.0, 2.0))
probability = np.asfortranarray(rng.random(image.shape, dtype=np.float32))
mean_field(image, probability, (1.0, 1.0, 2.0))
mean_field(image, rng.random((40, 36, 40))[..., ::2], (1.0, 1.0, 2.0))
batch_extreme_point_geodesics([image], [points.extremes_voxel], [(1, 1, 2)], background_probabilities=[probability])
batch = torch.from_numpy(np.ascontiguousarray(image))[None, None]
foreground = torch.rand(1, 2, *image.shape, requires_grad=True)
CRFLoss(sigma_beta=0.5)(batch, foreground).backward()
"""


def run(cache: Path, *words: str) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    result = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def written(cache: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_requests_and_trainings_use_the_compiled_kernels(tmp_path: Path) -> None:
    run(tmp_path, "-m", "lib.compile_kernels")
    compiled = written(tmp_path)
    assert compiled

    run(tmp_path, "-m", "lib.compile_kernels")
    run(tmp_path, "-c", REQUESTS_AND_TRAINING)

    assert written(tmp_path) == compiled
