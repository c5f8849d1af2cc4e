"""Scans of bright balls, networks with a known output, and tiny trainings."""

import time
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation
from lib.data.annotated_scan import AnnotatedScan
from lib.data.prepared_scans import PreparedScans
from lib.geometry.image_geometry import ImageGeometry
from lib.networks.checkpoint import TrainedModel, load_checkpoint
from lib.networks.spec import NetworkSpec
from lib.networks.versions import ModelVersions
from lib.training.hyperparameters import Hyperparameters
from lib.training.model_folder import ModelFolder
from lib.training.objective import ObjectiveValue
from lib.training.record import TrainingRecord
from lib.training.run import Listener, Training

SHAPE = (24, 20, 16)
AFFINE = np.eye(4)
LABELS = ("lesion", "cyst")
CENTRES = {"lesion": (7, 10, 8), "cyst": (17, 10, 8)}
TINY = {
    "iterations": 2,
    "max_minutes": 0,
    "patch_context": 0,
    "roi_size": "16x16x16",
    "train_batch_size": 1,
    "levels": 2,
    "base_channels": 2,
    "augmentation": "flip",
    "click_mask_weight": 0,
}
"""Hyper-parameters of a training that takes a second."""


def ball(centre, radius=4, shape=SHAPE):
    return sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(map(slice, shape))], centre, strict=True)) <= radius**2


def label_map(labels=LABELS):
    """Make the label map (X, Y, Z) uint8 of the balls."""
    return sum(index * ball(CENTRES[label]).astype(np.uint8) for index, label in enumerate(labels, start=1))


def clicks(label, mask=None):
    return ExtremePoints.from_clicks(label, simulated_extreme_points(ball(CENTRES[label]) if mask is None else mask))


def scan(folder, image_id, clicked=("lesion",), absent=(), masked=(), level=1.0, labels=LABELS):
    """Write a scan with a ball for each label that is not absent.

    Args:
        clicked, absent: labels with these answers.
        masked: labels that an accepted mask covers; its values are those of `labels`.
        level: intensity of the balls.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).normal(0, 0.02, SHAPE)
    for label, centre in CENTRES.items():
        if label not in absent:
            image[ball(centre)] += level
    path = folder / f"{image_id}.nii"
    nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), path)
    geometry = ImageGeometry(SHAPE, AFFINE)
    annotations = tuple(Annotation.now(image_id, clicks(label), geometry, "reader") for label in clicked)
    mask_path = None
    if masked:
        mask_path = folder / f"{image_id}.mask.nii"
        covered = label_map(labels) * np.isin(label_map(labels), [1 + labels.index(label) for label in masked])
        nib.save(nib.Nifti1Image(covered.astype(np.uint8), AFFINE), mask_path)
    checksum = f"{image_id} {absent} {level}"
    return AnnotatedScan(image_id, path, checksum, annotations, tuple(absent), mask_path, tuple(masked))


def scans(folder, count, **kinds):
    return [scan(folder, f"scan {number}", **kinds) for number in range(count)]


class Answer(nn.Module):
    """Labels bright voxels by the range of their X coordinate: range n gets label n."""

    def __init__(self, *ranges):
        super().__init__()
        self.ranges = ranges

    def forward(self, image):
        bright = 20 * (image - 1)
        x = torch.arange(image.shape[2], device=image.device).view(1, 1, -1, 1, 1)
        labels = [torch.where((x >= low) & (x < high), bright, -20.0) for low, high in self.ranges]
        return torch.cat([-torch.stack(labels).amax(dim=0), *labels], dim=1)


LEFT, RIGHT, BOTH, NOWHERE = (0, 12), (12, 24), (0, 24), (0, 0)


def answering(*ranges, labels=("lesion",), version=1):
    """Make a model with the network `Answer`, whose window covers a whole scan."""
    return TrainedModel(NetworkSpec.plan(labels, (1.0, 1.0, 1.0), SHAPE, 2, 2), Answer(*ranges), version)


def spec(labels=("lesion",), spacing_mm=(1.0, 1.0, 1.0), roi_size=(16, 16, 16), levels=2):
    return NetworkSpec.plan(labels, spacing_mm, roi_size, levels, 2)


def untrained(seed=0, version=1, **kinds):
    """Make an untrained model, like that of a training."""
    torch.manual_seed(seed)
    planned = spec(**kinds)
    return TrainedModel(planned, planned.build(), version)


def versions_in(folder, keep=5):
    return ModelVersions(folder / "model" / "inextremis.pt", keep)


class BrightIsLabel(nn.Module):
    """Fast objective: bright voxels are the first label."""

    def __init__(self, labels, spacing_mm, hyperparameters):
        super().__init__()

    def forward(self, batch, logits):
        loss = nn.functional.cross_entropy(logits, (batch.image[:, 0] > 1).long())
        return ObjectiveValue(loss, {"cross_entropy": loss.detach()}, torch.ones(logits.shape, dtype=torch.bool))


def training(folder, annotated, labels=("lesion",), keep=5, objective=BrightIsLabel, listener=None, **changes):
    """Make a tiny training of the project in a folder."""
    return Training(
        annotated,
        labels,
        ModelFolder(folder / "model", keep),
        Hyperparameters.of_preset("cpu").changed({**TINY, **changes}),
        PreparedScans(folder / "prepared"),
        torch.device("cpu"),
        objective=objective,
        listener=listener or Listener(),
    )


def published(folder):
    return load_checkpoint(versions_in(folder).published_path)


def record(folder):
    return TrainingRecord.load(folder / "model" / "inextremis" / "record.json")


def unfinished_path(folder):
    return folder / "model" / "inextremis" / "unfinished.pt"


class Recorder:
    """Records the callbacks of a run, and calls `do` after a number of reports."""

    def __init__(self, after=None, do=None):
        self.began, self.reports, self.verdicts = [], [], []
        self.after, self.do = after, do

    @property
    def listener(self):
        return Listener(lambda *numbers: self.began.append(numbers), self._report, self._judged)

    def _report(self, report):
        self.reports.append(report)
        if self.after == len(self.reports):
            self.do()

    def _judged(self, verdict, iterations):
        self.verdicts.append(verdict)


class Stopped(BaseException):
    """Stands in for the signal that ends the process of a training."""


def interrupted(folder, annotated, after, **changes):
    """Stop a training after some of its 20 parts."""

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        training(folder, annotated, listener=Recorder(after, stop).listener, **{"iterations": 20, **changes}).run()


def clock(monkeypatch):
    """Replace the clock by one that shows `seconds`."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.seconds)
    return now
