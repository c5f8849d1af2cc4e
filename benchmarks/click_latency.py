"""Seconds from six clicks to the mask, over HTTP, on a volume of 256 x 256 x 100 voxels.

Run with `python -m benchmarks.click_latency`.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import requests
from rich.console import Console

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.local_server import LocalServer
from lib.demo.studies import DemoStudySettings, write_demo_studies
from lib.geometry.volume import load_volume

SETTINGS = DemoStudySettings(shape=(256, 256, 100), spacing_mm=(0.5, 0.5, 1.0), lesion_radius_mm=(10.0, 15.0))
LATER_REQUESTS = 10


def seconds_of_request(url: str, clicks: list[list[int]]) -> tuple[float, dict[str, float]]:
    """Of the whole request as a viewer sends it, and of the stages in the server."""
    start = time.perf_counter()
    answer = requests.post(
        f"{url}/infer/extreme_points",
        params={"image": "study_00"},
        data={"params": json.dumps({"lesion": clicks, "result_extension": ".nrrd"})},
        timeout=120,
    )
    seconds = time.perf_counter() - start
    answer.raise_for_status()
    body = answer.content
    latencies = body[body.index(b'"latencies"') :].partition(b"}")[0]
    return seconds, json.loads(latencies.partition(b":")[2] + b"}")


def main() -> None:
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_demo_studies(root / "studies", root / "truth", 1, SETTINGS)
        truth = load_volume(root / "truth" / "study_00.nii.gz").array > 0
        clicks = simulated_extreme_points(truth, np.random.default_rng(0)).tolist()
        console.print(f"Extent of the structure: {np.ptp(np.array(clicks), axis=0) + 1} voxels")
        conf = {"model_dir": str(root / "model"), "tracking": "None"}
        start = time.perf_counter()
        with LocalServer(root / "studies", conf, root / "server.log") as server:
            console.print(f"Server ready after {time.perf_counter() - start:.1f} s")
            first, _ = seconds_of_request(server.url, clicks)
            later = [seconds_of_request(server.url, clicks) for _ in range(LATER_REQUESTS)]
        console.print(f"First request: {first:.2f} s")
        seconds = [total for total, _ in later]
        console.print(f"Later requests: median {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s")
        console.print("Stages of the last, in seconds:", later[-1][1])


if __name__ == "__main__":
    main()
