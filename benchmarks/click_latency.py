"""Measure the time from clicks to the mask, over HTTP, on a CT of 512 x 512 x 400 voxels with a published network.

Run with `python -m benchmarks.click_latency`. It prints a Markdown table. The network is that of the preset for
processors, trained for a minute on one of the images; it is published with a score of 0.9, so that clicks ask it.
Processor seconds are those of the server: they tell what an answer costs where something else keeps the cores busy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import psutil
import requests
import torch
from requests_toolbelt import MultipartDecoder
from torch.nn import functional

from lib.data.grid import network_image, network_label_map
from lib.demo.local_server import LocalServer
from lib.geometry.volume import Volume, load_volume
from lib.networks.checkpoint import TrainedModel, save_checkpoint
from lib.networks.precision import mixed_precision
from lib.networks.spec import NetworkSpec
from lib.training.hyperparameters import Hyperparameters

SPACING_MM = (0.7, 0.7, 1.0)
LESION, ORGAN = "lesion of 30 mm", "organ of 63 x 56 x 120 mm"
RADII_MM = {LESION: (15.0, 15.0, 15.0), ORGAN: (31.5, 28.0, 60.0)}
IMAGES = ("opened_by_a_click", "opened_by_next_sample")
SCORE, ITERATIONS = 0.9, 120


@dataclass(frozen=True)
class Structure:
    """An ellipsoid, in voxels."""

    centre: np.ndarray
    radii: np.ndarray

    def clicks(self, larger: int = 0) -> list[list[int]]:
        """Its six extreme points; `larger` by some voxels, as another annotator might click."""
        offsets = np.repeat(np.diag(np.round(self.radii).astype(int) + larger), 2, axis=0)
        return (self.centre + offsets * np.array([[-1], [1]] * 3)).tolist()

    def inside(self, shape: Sequence[int]) -> np.ndarray:
        grid = np.ogrid[tuple(map(slice, shape))]
        return sum(((x - c) / r) ** 2 for x, c, r in zip(grid, self.centre, self.radii, strict=True)) < 1


def structures(shape: Sequence[int]) -> dict[str, Structure]:
    """One of each size, apart from each other."""
    places = ((0.3, 0.5, 0.3), (0.7, 0.5, 0.6))
    radii = {name: np.divide(mm, SPACING_MM) for name, mm in RADII_MM.items()}
    return {
        name: Structure(np.round(np.multiply(place, shape)).astype(int), radii[name])
        for place, name in zip(places, radii, strict=True)
    }


def write_ct(path: Path, shape: tuple[int, int, int], seed: int) -> None:
    """Make a noisy body in air with the structures in it, as int16."""
    rng = np.random.default_rng(seed)
    body = Structure(np.array(shape) // 2, np.array([0.4, 0.3, 10]) * shape)
    image = np.where(body.inside(shape), 40, -1000).astype(np.int16)
    for structure in structures(shape).values():
        image[structure.inside(shape)] = 120
    for k in range(shape[2]):
        image[..., k] += rng.normal(0, 15, shape[:2]).astype(np.int16)
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    nib.save(nib.Nifti1Image(image, affine), path)


def trained_network(image_path: Path, shape: tuple[int, int, int]) -> TrainedModel:
    """Make a network that finds the structures of the image, on voxels of at least 1 mm."""
    h, volume = Hyperparameters.of_preset("cpu"), load_volume(image_path)
    spacing_mm = (max(SPACING_MM[0], h.min_spacing_mm), max(SPACING_MM[1], h.min_spacing_mm), SPACING_MM[2])
    torch.manual_seed(0)
    spec = NetworkSpec.plan(("lesion",), spacing_mm, h.roi_size, h.levels, h.base_channels)
    truth = np.any([structure.inside(shape) for structure in structures(shape).values()], axis=0)
    image, label = (
        network_image(volume, spacing_mm)[0],
        network_label_map(Volume(truth, volume.geometry), spacing_mm)[0],
    )
    network, places = spec.build().train(), label.nonzero()
    optimizer, precision = (
        torch.optim.AdamW(network.parameters(), h.learning_rate),
        mixed_precision(torch.device("cpu"), network, spec.roi_size),
    )
    for iteration in range(ITERATIONS):
        centre = places[torch.randint(len(places), (1,))][0]
        if iteration % 3 == 0:
            centre = (torch.rand(3) * torch.tensor(image.shape)).long()
        corner = [
            min(max(0, int(c) - n // 2), length - n)
            for c, n, length in zip(centre, spec.roi_size, image.shape, strict=True)
        ]
        window = tuple(slice(first, first + n) for first, n in zip(corner, spec.roi_size, strict=True))
        with torch.autocast("cpu", precision, enabled=precision is not None):
            logits = network(image[window].float()[None, None])
        loss = functional.cross_entropy(logits.float(), label[window].long()[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return TrainedModel(spec, network.eval(), 1, SCORE)


class Seconds(NamedTuple):
    """Time of an answer: wall time, and CPU time of the server."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Viewer:
    """Client that sends the requests of a viewer."""

    url: str
    process: psutil.Process

    def seconds(self, model: str, image: str, request: dict) -> Seconds:
        """As OHIF asks: for the mask alone, as NRRD."""
        start, processor = time.perf_counter(), self._processor_seconds()
        answer = self._post(model, image, {"result_extension": ".nrrd", **request}, output="image")
        answer.raw.read()
        return Seconds(time.perf_counter() - start, self._processor_seconds() - processor)

    def wait_until_idle(self, seconds: float = 3.0) -> None:
        """Until the server and the processes that it started have used next to no processor time for a while."""
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < seconds:
            before = self._processor_seconds(with_children=True)
            time.sleep(0.5)
            if self._processor_seconds(with_children=True) - before > 0.05:
                quiet_since = time.monotonic()

    def stages(self, model: str, image: str, request: dict) -> dict[str, float]:
        """Return the times in the server's answer."""
        answer = self._post(model, image, {"result_extension": ".nrrd", **request})
        parts = MultipartDecoder.from_response(answer).parts
        params = next(part for part in parts if b'"params"' in part.headers[b"Content-Disposition"])
        latencies: dict[str, float] = json.loads(params.text)["latencies"]
        return latencies

    def open_next(self) -> None:
        """Asks for the next sample."""
        requests.post(f"{self.url}/activelearning/first", json={}, timeout=60).raise_for_status()

    def _post(self, model: str, image: str, request: dict, **query: str) -> requests.Response:
        answer = requests.post(
            f"{self.url}/infer/{model}",
            params={"image": image, **query},
            data={"params": json.dumps(request)},
            timeout=1800,
            stream=True,
        )
        answer.raise_for_status()
        return answer

    def _processor_seconds(self, *, with_children: bool = False) -> float:
        processes = [self.process, *(self.process.children(recursive=True) if with_children else ())]
        total = 0.0
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total


def rows(viewer: Viewer, shape: Sequence[int], repeats: int) -> Iterator[tuple[str, list[Seconds]]]:
    """Print the requests, and the time of each answer."""
    found = structures(shape)
    first, second = IMAGES

    def click(image: str, clicks: list[list[int]], extension: str = ".nrrd") -> Seconds:
        return viewer.seconds("extreme_points", image, {"lesion": clicks, "result_extension": extension})

    viewer.wait_until_idle()
    yield f"very first click on an image, {LESION}", [click(first, found[LESION].clicks())]
    viewer.wait_until_idle()
    viewer.open_next()
    viewer.wait_until_idle()
    yield f"first click after Next Sample, {LESION}", [click(second, found[LESION].clicks())]
    for name, structure in found.items():
        # Each structure is larger than those before, so that no prediction of it is kept.
        yield f"six clicks, {name}", [click(second, structure.clicks(n)) for n in range(1, 1 + repeats)]
        largest = structure.clicks(repeats)
        corrected = [[*largest, (structure.centre + [n, 0, 0]).tolist()] for n in range(repeats)]
        yield f"corrective click, {name}", [click(second, clicks) for clicks in corrected]
        yield f"corrective click, {name}, as .nii.gz", [click(second, clicks, ".nii.gz") for clicks in corrected]
    yield "automatic mask", [viewer.seconds("inextremis", second, {})]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.click_latency", description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 400), help="voxels of the images")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    shape = tuple(options.shape)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "studies").mkdir()
        for seed, name in enumerate(IMAGES):
            write_ct(root / "studies" / f"{name}.nii.gz", shape, seed)
        model = trained_network(root / "studies" / f"{IMAGES[0]}.nii.gz", shape)
        (root / "model").mkdir()
        save_checkpoint(root / "model" / "inextremis.pt", model)
        conf = {"model_dir": str(root / "model"), "tracking": "None"}
        with LocalServer(root / "studies", conf, root / "server.log") as server:
            viewer = Viewer(server.url, psutil.Process(server.process.pid))
            print("| asked | median (s) | slowest (s) | processor (s) |\n|---|---|---|---|")
            for name, seconds in rows(viewer, shape, options.repeats):
                wall, processor = zip(*seconds, strict=True)
                figures = (statistics.median(wall), max(wall), statistics.median(processor))
                print(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in figures)} |", flush=True)
            lesion = structures(shape)[LESION].clicks(options.repeats + 1)
            print("\nStages of a click, in seconds:", viewer.stages("extreme_points", IMAGES[1], {"lesion": lesion}))
            print(f"Memory of the server: {viewer.process.memory_info().rss / 2**20:.0f} MB")


if __name__ == "__main__":
    main()
