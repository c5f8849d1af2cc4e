"""Measure the app on a GPU: training speed and memory, latency of masks, agreement with the processor.

Run with `benchmarks/gpu_check.sh`; it takes at most ten minutes. The scans are synthetic, each with a lesion and six
scripted clicks. Each measurement is a process of its own with a time limit; one that fails is a line of the table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch.nn import functional

from benchmarks.training_speed import CRF, GEODESICS, LOADING, TimedTraining
from lib.annotations.atomic_write import write_atomically
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.image_identity import ImageIdentities
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation, AnnotationStore
from lib.data.annotated_scan import AnnotatedScan
from lib.data.prepared_scans import PreparedScans
from lib.geometry.boxes import Box
from lib.geometry.image_geometry import ImageGeometry
from lib.inference.automatic_mask import automatic_mask, label_map
from lib.inference.click_label_map import click_label_map
from lib.inference.opened_images import OpenedImages
from lib.inference.prediction import predict_probability
from lib.inference.region_predictor import RegionPredictor
from lib.networks.checkpoint import TrainedModel, load_checkpoint, save_checkpoint
from lib.trainers.background import run_at_low_priority
from lib.training.hyperparameters import Hyperparameters, Preset

LABEL = "lesion"
SPACING_MM = (0.5, 0.5, 1.5)
LESION_SEMI_AXES_MM = (8.0, 13.0)
LARGE = "large"
PACKAGES = ("torch", "monai", "torchio", "numpy", "scipy", "numba")

Row = tuple[str, str]


@dataclass(frozen=True)
class Sizes:
    """Extent of the measurement.

    Attributes:
        scan: voxels of the scans to train on.
        large: voxels of the scan to segment.
        changes: hyper-parameters that differ from the presets'.
        iterations: of each training at most; None for as many as there is time for.
    """

    scan: tuple[int, int, int] = (448, 448, 80)
    large: tuple[int, int, int] = (512, 512, 400)
    changes: dict[str, Any] = field(default_factory=dict)
    iterations: int | None = None


SCANS = 4
SMALL = Sizes(
    (48, 48, 16), (64, 64, 16), {"roi_size": "32x32x16", "train_batch_size": 2, "base_channels": 4, "levels": 3}, 3
)


@dataclass(frozen=True)
class Check:
    """Shared parts of all measurements.

    Attributes:
        folder: of the scans, and of what one measurement leaves for the next.
        limit_s: of a measurement.
    """

    folder: Path
    device: torch.device
    sizes: Sizes
    limit_s: float

    @property
    def prepared(self) -> PreparedScans:
        return PreparedScans(self.folder / "prepared")

    @property
    def identities(self) -> ImageIdentities:
        return ImageIdentities(self.folder / "identities.json")

    @property
    def clicks(self) -> AnnotationStore:
        return AnnotationStore(self.folder / "clicks")

    @property
    def names(self) -> list[str]:
        return [f"scan_{number}" for number in range(SCANS)]

    @property
    def model_path(self) -> Path:
        """Of the network of the preset `gpu`, after as many iterations as there was time for."""
        return self.folder / "inextremis.pt"

    def image_path(self, name: str) -> Path:
        return self.folder / f"{name}.nii"

    def annotation(self, name: str) -> Annotation:
        answer = self.clicks.load(name, LABEL)
        assert isinstance(answer, Annotation)
        return answer

    def annotated_scans(self) -> list[AnnotatedScan]:
        paths = [(name, self.image_path(name)) for name in self.names]
        return [
            AnnotatedScan(name, path, self.identities.checksum(path), (self.annotation(name),)) for name, path in paths
        ]


def machine(check: Check) -> Iterator[Row]:
    cores = f"{os.cpu_count()} cores ({platform.machine()})"
    if check.device.type == "cuda":
        gpu = torch.cuda.get_device_properties(check.device)
        yield "machine", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GB; {cores}"
    else:
        yield "machine", f"no GPU; {cores}"
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    yield "versions", f"Python {platform.python_version()}, CUDA {torch.version.cuda or 'none'}, {packages}"


def scans(check: Check) -> Iterator[Row]:
    """Write the scans and their clicks."""
    rng = np.random.default_rng(0)
    for name in [*check.names, LARGE]:
        shape = check.sizes.large if name == LARGE else check.sizes.scan
        image, clicks_voxel = synthetic_scan(shape, rng)
        geometry = ImageGeometry(shape, np.diag([*SPACING_MM, 1.0]))
        nib.save(nib.Nifti1Image(image, geometry.affine_ras), check.image_path(name))
        points = ExtremePoints.from_clicks(LABEL, clicks_voxel)
        check.clicks.save(Annotation.now(name, points, geometry, "scripted annotator"))
    yield from ()


def synthetic_scan(shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make a bright ellipsoid in a noisy texture, (X, Y, Z) int16, and its six extreme points (6, 3) in voxels."""
    coarse = torch.from_numpy(rng.standard_normal([n // 16 + 2 for n in shape], np.float32))
    image: np.ndarray = functional.interpolate(coarse[None, None], shape, mode="trilinear")[0, 0].numpy() * 80 + 300
    image += 20 * rng.standard_normal(shape, np.float32)
    largest = 0.2 * np.array(shape)
    semi_axes = np.minimum(rng.uniform(*LESION_SEMI_AXES_MM, 3) / SPACING_MM, largest)
    centre = rng.uniform(0.3, 0.7, 3) * shape
    start = np.floor(centre - semi_axes).astype(int)
    box = Box.around(np.array([start, np.ceil(centre + semi_axes).astype(int)]))
    offsets = np.moveaxis(np.indices(box.shape), 0, -1) + start - centre
    lesion = np.square(offsets / semi_axes).sum(axis=-1) <= 1
    image[box.slices][lesion] += 250
    return image.round().astype(np.int16), simulated_extreme_points(lesion, rng) + start


def training(check: Check, preset: Preset) -> Iterator[Row]:
    """Speed and peak memory, then the share of some parts; a quarter of the time limit each."""
    run_at_low_priority()
    h = Hyperparameters.of_preset(preset).changed(check.sizes.changes)
    timed = TimedTraining.on(check.annotated_scans(), (LABEL,), h, check.prepared, check.device)
    yield f"preset {preset}: prepare a scan, once", f"{timed.preparing_s:.2f} s"
    rate = timed.iterations_per_s(check.limit_s / 4, check.sizes.iterations)
    yield f"preset {preset}: training", f"{rate:.2f} iterations a second"
    if check.device.type == "cuda":
        yield f"preset {preset}: peak GPU memory", f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GB"
    if preset == "gpu":
        save_checkpoint(check.model_path, timed.model)
    seconds = timed.seconds_of_parts(check.limit_s / 4, check.sizes.iterations)
    for name in (LOADING, GEODESICS, CRF):
        yield f"preset {preset}: {name}", f"{seconds[name] / sum(seconds.values()):.1%} of an iteration"


def automatic(check: Check) -> Iterator[Row]:
    """Time from the file of a scan to its label map."""
    model, images = _model(check), OpenedImages(check.prepared, check.identities)

    def segment() -> float:
        start = time.perf_counter()
        image = images.open(check.image_path(LARGE))
        automatic_mask(model, image.volume, images.on_grid(image, model.spec.spacing_mm), check.device)
        return time.perf_counter() - start

    yield "automatic mask, of a new scan", f"{segment():.2f} s"
    yield "automatic mask, of a scan that was opened before", f"{segment():.2f} s"
    if check.device.type == "cuda":
        yield "automatic mask: peak GPU memory", f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GB"


def click(check: Check) -> Iterator[Row]:
    """Time from six clicks on an opened scan to the label map, with the network."""
    model, images = _model(check), OpenedImages(check.prepared, check.identities)
    predictor, points = RegionPredictor(images, check.device), check.annotation(LARGE).points
    images.on_grid(images.open(check.image_path(LARGE)), model.spec.spacing_mm)

    def segment() -> float:
        start = time.perf_counter()
        image = images.open(check.image_path(LARGE))
        click_label_map(
            image.volume, [points], {LABEL: 1}, lambda label, box: predictor.probability(model, image, box)[0], 0.5
        )
        return time.perf_counter() - start

    yield "mask of six clicks, first of the process", f"{segment():.2f} s"
    again = [segment() for _ in range(3)]
    yield "mask of six clicks, repeated", f"{min(again):.2f} s"


def agreement(check: Check) -> Iterator[Row]:
    """Compare the same network on the processor and on the device, around the lesion of a scan."""
    scan = check.annotated_scans()[0]
    model, images = _model(check), OpenedImages(check.prepared, check.identities)
    image = images.open(scan.image_path)
    box = Box.around(scan.annotations[0].points.foreground_voxel).relaxed(16, image.volume.geometry.shape)
    prepared = images.on_grid(image, model.spec.spacing_mm)
    on_device = predict_probability(model, image.volume, check.device, prepared, box)
    on_processor = predict_probability(load_checkpoint(check.model_path), image.volume, "cpu", prepared, box)
    one, other = (label_map(probability) > 0 for probability in (on_device, on_processor))
    dice = 2 * (one & other).sum() / max(1, one.sum() + other.sum()) if one.any() or other.any() else 1.0
    yield "processor and device: Dice of the masks", f"{dice:.4f} ({one.sum()} and {other.sum()} voxels)"
    yield "processor and device: largest difference of a probability", f"{np.abs(on_device - on_processor).max():.4f}"


MEASUREMENTS: dict[str, Callable[[Check], Iterator[Row]]] = {
    "machine": machine,
    "scans": scans,
    "preset gpu": partial(training, preset="gpu"),
    "preset paper": partial(training, preset="paper"),
    "automatic mask": automatic,
    "mask of six clicks": click,
    "processor and device": agreement,
}


def rows_of(name: str, measure: Callable[[Check], Iterator[Row]], check: Check) -> Iterator[Row]:
    """Return the lines of a measurement in its own process, as far as it comes within its limit."""
    # A fork has the modules loaded; nothing here computes before it, so that no thread and no CUDA context is lost.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, name, measure, check))
    end = time.monotonic() + check.limit_s
    process.start()
    sender.close()
    try:
        while receiver.poll(max(0.0, end - time.monotonic())):
            yield receiver.recv()
        yield _not_measured(name, f"it took longer than {check.limit_s:.0f} s")
    except EOFError:
        process.join()
        if process.exitcode:
            yield _not_measured(name, f"its process ended with status {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _send(sender: Connection, name: str, measure: Callable[[Check], Iterator[Row]], check: Check) -> None:
    try:
        for row in measure(check):
            sender.send(row)
    except Exception as error:  # whatever CUDA, torch and a full disk raise
        lines = str(error).strip().splitlines()
        sender.send(_not_measured(name, lines[0] if lines else type(error).__name__))


def _not_measured(name: str, why: str) -> Row:
    return name, f"not measured: {why}"


def _model(check: Check) -> TrainedModel:
    try:
        return load_checkpoint(check.model_path, check.device)
    except FileNotFoundError:
        raise ValueError("the training with the preset gpu left no network") from None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def markdown(rows: list[Row], sizes: Sizes) -> str:
    scan, large = (" x ".join(map(str, shape)) for shape in (sizes.scan, sizes.large))
    changes = ", ".join(f"{name} {value}" for name, value in sizes.changes.items())
    about = f"Synthetic scans of {' x '.join(map(str, SPACING_MM))} mm: {SCANS} of {scan} voxels to train on, one of "
    about += f"{large} for the times of masks. Hyper-parameters: {changes or 'those of the presets'}."
    table = [
        "| measurement | value |",
        "|---|---|",
        *(f"| {name} | {value.replace('|', '/')} |" for name, value in rows),
    ]
    date = time.strftime("%Y-%m-%d")
    return "\n".join(["# Measured on one machine", "", f"`benchmarks/gpu_check.sh`, {date}. {about}", "", *table, ""])


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu_check.sh", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="cpu measures in small")
    parser.add_argument("--seconds", type=float, default=480.0, help="for all measurements (default: %(default)s)")
    options = parser.parse_args()
    sizes = SMALL if options.device.type == "cpu" else Sizes()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        check = Check(Path(folder), options.device, sizes, options.seconds / len(MEASUREMENTS))
        for name, measure in MEASUREMENTS.items():
            print(f"{name} ...", flush=True)
            for row in rows_of(name, measure, check):
                rows.append(row)
                write_atomically(options.out, markdown(rows, sizes).encode())
    print(markdown(rows, sizes))


if __name__ == "__main__":
    main()
