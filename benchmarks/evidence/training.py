"""One run: a row with a seed, trained by the app's own trainer, and the masks that come of it."""

from __future__ import annotations

import gzip
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Events
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.basic_train import Context

from benchmarks.evidence.dataset import LABEL, SPLITS, SUFFIX, Dataset
from benchmarks.evidence.rows import ROWS, Row
from benchmarks.evidence.scores import CaseScore, mask_scores, write_scores
from lib.annotations.atomic_write import write_atomically
from lib.annotations.store import Annotation, AnnotationStore
from lib.data.scans import AnnotatedScan
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import load_volume
from lib.infers.prediction import predict_probability
from lib.networks.checkpoint import load_checkpoint
from lib.networks.versions import ModelVersions
from lib.refinement.automatic_mask import label_map
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.train_task import InExtremISTrainTask

PACKAGES = ("torch", "monai", "monailabel", "torchio", "numpy", "scipy", "scikit-image", "numba")


class RowTrainTask(InExtremISTrainTask):
    """The app's trainer on given scans, with the objective of a row; nothing is held out, as other cases are scored.

    Args:
        scans: to train on.
        after_epoch: called after each.
    """

    def __init__(
        self,
        versions: ModelVersions,
        hyperparameters: Hyperparameters,
        row: Row,
        scans: Sequence[AnnotatedScan],
        after_epoch: Callable[[], None],
    ) -> None:
        no_store = AnnotationStore(versions.published_path.parent)
        super().__init__(versions, (LABEL,), no_store, hyperparameters, tracking="None")
        self.row = row
        self.given_scans = scans
        self.after_epoch = after_epoch

    def scans(self, datastore: Datastore | None) -> list[AnnotatedScan]:
        return list(self.given_scans)

    def loss_function(self, context: Context) -> torch.nn.Module:
        objective: torch.nn.Module = self.row.objective(
            self.label_names, self.start.spec.spacing_mm, context.request["hyperparameters"]
        )
        return objective

    def finalize(self, context: Context) -> None:
        super().finalize(context)
        context.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.after_epoch)


@dataclass(frozen=True)
class Run:
    """A row with a seed in a folder of its own; a run that was cut short goes on after its last epoch.

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
    def versions(self) -> ModelVersions:
        folder = self.folder if self.base is None else self.base.folder
        return ModelVersions(folder / "model" / "inextremis.pt")

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
        return trained.row.seconds_a_scan * len(trained.training_cases)

    def run(self, after_epoch: Callable[[], None] = lambda: None) -> None:
        """Trains, predicts and scores what is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        if self.base is None:
            self._train(after_epoch)
        self._record(time.perf_counter() - start)
        write_scores(self.scores_path, self._predict())

    def _train(self, after_epoch: Callable[[], None]) -> None:
        epochs = max(1, self.preset.max_epochs // self.row.rounds)
        # Each round starts from the network of the last, as pseudo-masks are to get better with it.
        fixed = {"max_epochs": epochs, "held_out_share": 0, "publish_tolerance": 1, "seed": self.seed}
        hyperparameters = self.preset.changed({**self.row.changes, **fixed})
        while self.versions.next_number() <= self.row.rounds:
            scans = self._scans(hyperparameters)
            RowTrainTask(self.versions, hyperparameters, self.row, scans, after_epoch)({"model": LABEL}, None)

    def _scans(self, hyperparameters: Hyperparameters) -> list[AnnotatedScan]:
        cases, image_path = self.training_cases, self.dataset.image_path
        if self.row.hand is None:
            return [AnnotatedScan(case, image_path(case), mask_path=self.dataset.mask_path(case)) for case in cases]
        annotations = {case: self.dataset.annotation(case, self.row.hand) for case in cases}
        masks = self._pseudo_masks(annotations, hyperparameters.box_margin) if self.row.pseudo_mask else {}
        return [AnnotatedScan(case, image_path(case), (annotations[case],), masks.get(case)) for case in cases]

    def _pseudo_masks(self, annotations: Mapping[str, Annotation], margin_voxels: int) -> dict[str, Path]:
        """Of this round, from the clicks and the network of the round before."""
        assert self.row.pseudo_mask is not None
        number = self.versions.next_number()
        model = load_checkpoint(self.versions.published_path) if number > 1 else None
        if model is not None:
            model.network.to(_device())
        paths = {case: self.folder / "pseudo_masks" / str(number) / f"{case}{SUFFIX}" for case in annotations}
        for case, path in paths.items():
            if not path.exists():
                volume = load_volume(self.dataset.image_path(case))
                probability = None if model is None else predict_probability(model, volume, _device())[0]
                mask = self.row.pseudo_mask(volume, annotations[case].points, probability, margin_voxels)
                write_mask(path, mask, volume.geometry)
        return paths

    def _predict(self) -> list[CaseScore]:
        model = load_checkpoint(self.versions.published_path)
        model.network.to(_device())
        scores = []
        for split in SPLITS[1:]:
            for case in self.dataset.cases[split]:
                volume = load_volume(self.dataset.image_path(case))
                probability = predict_probability(model, volume, _device())
                refined = self.row.refinement
                mask = label_map(probability) > 0 if refined is None else refined(volume, probability[0])
                write_mask(self.mask_path(case), mask, volume.geometry)
                truth = self.dataset.truth(case)
                figures = mask_scores(mask, truth, volume.geometry)
                voxels = int(mask.sum()), int(truth.sum())
                scores.append(CaseScore(self.name, self.seed, split, case, *figures, *voxels))
        return scores

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` says of a run that is done."""
        record: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return record

    def check_record(self) -> None:
        """Raises: ValueError: the run is done, but with other hyper-parameters than are asked for now."""
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
            "rounds": self.row.rounds,
            "versions": {name: version(name) for name in PACKAGES},
            "hardware": hardware(),
        }
        write_atomically(self.folder / "run.json", json.dumps(record, indent=1).encode())


def hardware() -> dict[str, Any]:
    """What a run was computed on, in words."""
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
    """A mask (X, Y, Z) bool as NIfTI, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(mask.astype(np.uint8), geometry.affine_ras)
    write_atomically(path, gzip.compress(image.to_bytes(), compresslevel=5, mtime=0))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
