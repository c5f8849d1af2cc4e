"""The check of a GPU ends with a full table, whatever happens to a measurement."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu_check import SMALL, Check, Row, rows_of, synthetic_scan

ROOT = Path(__file__).parents[2]


def table(markdown: str) -> dict[str, str]:
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return {name: value for name, value in lines[1:]}


@pytest.mark.slow
def test_everything_is_measured_in_small_on_a_processor(tmp_path: Path) -> None:
    out = tmp_path / "gpu.md"

    command = ["bash", ROOT / "benchmarks" / "gpu_check.sh", "--device", "cpu", "--seconds", "400", "--out", out]
    subprocess.run(command, check=True, capture_output=True, timeout=300)

    values = table(out.read_text())
    assert not [value for value in values.values() if "not measured" in value]
    assert "torch" in values["versions"]
    for preset in ("gpu", "paper"):
        assert float(values[f"preset {preset}: training"].split()[0]) > 0
        parts = [values[f"preset {preset}: {part}"] for part in ("loading", "geodesics", "CRF term")]
        loading, geodesics, crf = (float(part.split("%")[0]) for part in parts)
        assert min(loading, geodesics, crf) > 0 and loading + geodesics + crf < 100
    for name in ("automatic mask, of a new scan", "mask of six clicks, repeated"):
        assert float(values[name].split()[0]) >= 0
    assert values["processor and device: Dice of the masks"].startswith("1.0000")
    assert values["processor and device: largest difference of a probability"] == "0.0000"


def rows(measure: object, tmp_path: Path, limit_s: float = 60.0) -> list[Row]:
    check = Check(tmp_path, torch.device("cpu"), SMALL, limit_s)
    return list(rows_of("speed", measure, check))  # type: ignore[arg-type]


def test_an_error_is_a_line_after_what_was_measured_before_it(tmp_path: Path) -> None:
    def measure(check: Check) -> Iterator[Row]:
        yield "one", "1 s"
        raise RuntimeError("CUDA out of memory.\nTried to allocate 20 GB.")

    assert rows(measure, tmp_path) == [("one", "1 s"), ("speed", "not measured: CUDA out of memory.")]


def test_a_measurement_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    def measure(check: Check) -> Iterator[Row]:
        yield "process", str(os.getpid())
        time.sleep(600)

    (_, number), (name, value) = rows(measure, tmp_path, limit_s=1)

    assert (name, value) == ("speed", "not measured: it took longer than 1 s")
    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)


def test_a_process_that_dies_is_a_line(tmp_path: Path) -> None:
    def measure(check: Check) -> Iterator[Row]:
        yield "one", "1 s"
        os._exit(3)

    assert rows(measure, tmp_path) == [("one", "1 s"), ("speed", "not measured: its process ended with status 3")]


def test_clicks_are_the_ends_of_what_is_bright() -> None:
    shape = (64, 64, 24)
    image, clicks_voxel = synthetic_scan(shape, np.random.default_rng(1))

    assert (image.shape, image.dtype) == (shape, np.int16)
    low, high = clicks_voxel.min(axis=0), clicks_voxel.max(axis=0)
    inside = tuple(slice(a + 2, b - 1) for a, b in zip(low, high, strict=True))
    middle = np.median(image[inside])
    outside = np.median(np.delete(image, range(low[0], high[0] + 1), axis=0))
    assert middle - outside > 150
