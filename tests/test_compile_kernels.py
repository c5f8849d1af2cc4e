"""Kernels that an installation compiles: all of them, for all types of arrays that requests and trainings have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Images lie in memory as `load_volume` gives them, the first axis fastest.
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


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    run(folder, "-m", "lib.compile_kernels")
    return folder


@pytest.mark.slow
def test_requests_and_trainings_compile_nothing_more(cache: Path) -> None:
    before = written(cache)

    run(cache, "-c", REQUESTS_AND_TRAINING)

    assert before
    assert written(cache) == before


@pytest.mark.slow
def test_what_is_compiled_is_not_compiled_again(cache: Path) -> None:
    before = written(cache)

    run(cache, "-m", "lib.compile_kernels")

    assert written(cache) == before
