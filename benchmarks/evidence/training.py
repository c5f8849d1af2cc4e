"""Run a row with a seed: train with the app's own trainer, and make masks."""

from __future__ import annotations

import gzip
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from benchmarks.evidence.dataset import SPLITS, SUFFIX, Dataset
from benchmarks.evidence.rows import ROWS, Row
from benchmarks.evidence.scores import CaseScore, mask_scores, write_scores
from lib.annotations.atomic_write import write_atomically
from lib.data.annotated_scan import AnnotatedScan
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import load_volume
from lib.inference.automatic_mask import crf_label_map, label_map
from lib.inference.prediction import predict_probability
from lib.networks.checkpoint import TrainedModel, load_checkpoint
from lib.training.crf_choice import crf_helps
from lib.training.hyperparameters import Hyperparameters
from lib.training.model_folder import ModelFolder
from lib.training.record import TrainingRecord
from lib.training.run import Listener, Report, Training

PACKAGES = ("torch", "monai", "monailabel", "torchio", "numpy", "scipy", "scikit-image", "numba")


@dataclass(frozen=True)
class Run:
    """A row with a seed in a folder of its own; a run that was cut short goes on after its last report.

    Attributes:
        preset: hyper-parameters that the row changes.
    """

    name: str
    row: Row
    seed: int
    dataset: Dataset
    preset: Hyperparameters
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / "runs" / f"{self.name},seed={self.seed}"

    @property
    def scores_path(self) -> Path:
        return self.folder / "scores.csv"

    @property
    def is_done(self) -> bool:
        return self.scores_path.exists()

    def mask_path(self, case: str) -> Path:
        return self.folder / "masks" / f"{case}{SUFFIX}"

    @property
    def base(self) -> Run | None:
        """The run whose network this one uses."""
        name = self.row.network_of
        return None if name is None else replace(self, name=name, row=ROWS[name])

    @property
    def is_ready(self) -> bool:
        """Can it begin? Its network may have to be trained first."""
        return self.base is None or self.base.is_done

    @property
    def models(self) -> ModelFolder:
        folder = self.folder if self.base is None else self.base.folder
        return ModelFolder(folder / "model")

    @property
    def training_cases(self) -> list[str]:
        """Drawn by the seed; fewer scans are among the more."""
        if self.base is not None:
            return self.base.training_cases
        cases = self.dataset.cases["training"]
        drawn = np.random.default_rng(self.seed).permutation(len(cases))[: self.row.training_scans(len(cases))]
        return [cases[index] for index in sorted(drawn)]

    @property
    def annotation_s(self) -> int:
        trained = self.base or self
        return trained.row.annotation_s(len(trained.training_cases))

    def run(self, reported: Callable[[Report], None] = lambda report: None) -> None:
        """Trains, predicts and scores what is missing; `reported` is called on the way."""
        self.folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        if self.base is None:
            self._train(reported)
        self._record(time.perf_counter() - start)
        write_scores(self.scores_path, self._predict())

    @property
    def prepared(self) -> PreparedScans:
        """Shared by all runs."""
        return PreparedScans(self.out / "prepared")

    def _train(self, reported: Callable[[Report], None]) -> None:
        # Nothing is held out, as other cases are scored.
        fixed = {"held_out_share": 0, "seed": self.seed}
        h = self.preset.changed(self.row.changes).changed(fixed)
        if not TrainingRecord.load(self.models.trainings.record).runs:
            Training(
                self._scans(),
                self.dataset.labels,
                self.models,
                h,
                self.prepared,
                _device(),
                listener=Listener(reported=reported),
            ).run()

    def _scans(self) -> list[AnnotatedScan]:
        cases = self.training_cases
        if self.row.hand is None:
            return [self.dataset.annotated_scan(case, mask_path=self._mask_path(case)) for case in cases]
        annotations = {case: self.dataset.annotations(case, self.row.hand) for case in cases}
        masked = np.random.default_rng(self.seed).permutation(cases)[: self.row.masked]
        masks = {case: self._mask_path(case) for case in masked.tolist()}
        return [self.dataset.annotated_scan(case, annotations[case], masks.get(case)) for case in cases]

    def _mask_path(self, case: str) -> Path:
        """Return a file of the truth with the values of the labels."""
        path = self.out / "masks" / f"{case}{SUFFIX}"
        if not path.exists():
            truth = self.dataset.truth(case)
            write_mask(path, truth.array, truth.geometry)
        return path

    def _predict(self) -> list[CaseScore]:
        model = load_checkpoint(self.models.published, _device())
        has_crf = self._has_crf(model)
        scores = []
        for split in SPLITS[1:]:
            for case in self.dataset.cases[split]:
                volume, truth = load_volume(self.dataset.image_path(case)), self.dataset.truth(case).array
                probability = predict_probability(model, volume, _device())
                mask = label_map(probability)
                if has_crf:
                    mask = crf_label_map(volume.array, probability, volume.geometry.spacing_mm)
                write_mask(self.mask_path(case), mask, volume.geometry)
                for index, label in enumerate(self.dataset.labels, start=1):
                    one, other = mask == index, truth == index
                    if other.any():
                        figures = mask_scores(one, other, volume.geometry)
                        voxels = int(one.sum()), int(other.sum())
                        scores.append(CaseScore(self.name, self.seed, split, case, label, *figures, *voxels))
        return scores

    def _has_crf(self, model: TrainedModel) -> bool:
        """As the app decides: the validation cases are held out, with masks where the row learns from masks."""
        if self.row.crf is not None:
            return self.row.crf
        masked = self.dataset.cases["validation"] if self.row.hand is None else []
        held_out = [self.dataset.annotated_scan(case, mask_path=self._mask_path(case)) for case in masked]
        return crf_helps(model, held_out, ScanVolumes(self.prepared, model.spec.spacing_mm), _device())

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` says of a run that is done."""
        record: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return record

    def check_record(self) -> None:
        """Check an earlier run. Raises: ValueError: it has other hyper-parameters than the requested ones."""
        if not self.is_done:
            return
        asked = self.preset.changed(self.row.changes).model_dump()
        for name, value in self.record["hyperparameters"].items():
            if name in asked and asked[name] != value:
                raise ValueError(
                    f"{self.folder} was made with {name} {value}, and {asked[name]} is asked for now; choose another "
                    "--out, or delete the run."
                )

    def _record(self, training_s: float) -> None:
        record: dict[str, Any] = {
            "row": self.name,
            "title": self.row.title,
            "seed": self.seed,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "annotation_s": self.annotation_s,
            "training_scans": self.training_cases,
            "training_s": round(training_s, 1),
            "hyperparameters": self.preset.changed(self.row.changes).model_dump(),
            "versions": {name: version(name) for name in PACKAGES},
            "hardware": hardware(),
        }
        write_atomically(self.folder / "run.json", json.dumps(record, indent=1).encode())


def hardware() -> dict[str, Any]:
    """Describe the hardware of a run."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_mask(path: Path, mask: np.ndarray, geometry: ImageGeometry) -> None:
    """Write a mask (X, Y, Z) of label indices as NIfTI, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(mask.astype(np.uint8), geometry.affine_ras)
    write_atomically(path, gzip.compress(image.to_bytes(), compresslevel=5, mtime=0))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
