"""Trainings of the app's own trainer on demo studies, scored on studies that were never clicked; resumable."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.annotations.atomic_write import write_atomically
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation, AnnotationStore
from lib.demo.studies import write_demo_studies
from lib.demo.walkthrough import dice
from lib.geometry.volume import load_volume
from lib.infers.prediction import predict_probability
from lib.networks.checkpoint import TrainedModel, load_checkpoint
from lib.networks.versions import ModelVersions
from lib.refinement.automatic_mask import label_map
from lib.server.open_studies import open_studies
from lib.trainers.background import yield_to_annotators
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.train_task import InExtremISTrainTask

LABEL = "lesion"


@dataclass(frozen=True)
class Dataset:
    """Demo studies of which the first are clicked and the rest are for the scores.

    Attributes:
        folder: `studies/`, `truth/` and the clicks.
        click_error_voxels: standard deviation of a hand's error.
    """

    folder: Path
    clicked: int
    unseen: int
    click_error_voxels: float = 1.0

    def make(self) -> list[str]:
        """Writes what is missing; returns the ids of the studies."""
        studies = write_demo_studies(self.folder / "studies", self.folder / "truth", self.clicked + self.unseen)
        for number, study in enumerate(studies[: self.clicked]):
            path = self.store.path(study, LABEL)
            if not path.exists():
                volume = load_volume(self.folder / "studies" / f"{study}.nii.gz")
                rng = np.random.default_rng(number)
                clicks = simulated_extreme_points(self.truth(study), rng, self.click_error_voxels)
                points = ExtremePoints.from_clicks(LABEL, clicks)
                self.store.save(Annotation.now(study, points, volume.geometry, "scripted annotator"))
        return studies

    @property
    def store(self) -> AnnotationStore:
        return AnnotationStore(self.folder / "studies" / "labels" / "extreme_points")

    def truth(self, study: str) -> np.ndarray:
        """(X, Y, Z) bool."""
        return load_volume(self.folder / "truth" / f"{study}.nii.gz").array > 0


def dice_of_training(dataset: Dataset, changes: Mapping[str, Any], results: Path) -> dict[str, Any]:
    """Trains with the CPU preset and some changes, once: a result that is in the folder `results` is read.

    All clicked studies are trained on, as others are there for the score.

    Returns:
        `dice`: of each unseen study; `seconds`: of the training; `changes`.
    """
    name = ",".join(f"{key}={value}" for key, value in sorted(changes.items())) or "preset"
    path = results / f"{name}.json"
    if not path.exists():
        write_atomically(path, json.dumps(_train_and_score(dataset, changes), indent=1).encode())
    return json.loads(path.read_text())


def _train_and_score(dataset: Dataset, changes: Mapping[str, Any]) -> dict[str, Any]:
    yield_to_annotators()
    studies = dataset.make()
    with tempfile.TemporaryDirectory() as folder:
        published = Path(folder) / "inextremis.pt"
        hyperparameters = Hyperparameters.of_preset("cpu").changed({"held_out_share": 0, **changes})
        versions = ModelVersions(published)
        trainer = InExtremISTrainTask(versions, (LABEL,), dataset.store, hyperparameters, tracking="None")
        start = time.perf_counter()
        trainer({"model": "inextremis"}, open_studies(str(dataset.folder / "studies"), (LABEL,), None))
        seconds = time.perf_counter() - start
        model = load_checkpoint(published)
    scores = dice_of_model(dataset, model, studies[dataset.clicked :])
    return {"changes": dict(changes), "dice": scores, "seconds": round(seconds, 1)}


def dice_of_model(dataset: Dataset, model: TrainedModel, studies: Sequence[str]) -> list[float]:
    """Of the automatic mask of each study with the truth."""
    scores = []
    for study in studies:
        volume = load_volume(dataset.folder / "studies" / f"{study}.nii.gz")
        scores.append(dice(label_map(predict_probability(model, volume)) > 0, dataset.truth(study)))
    return scores


def mean_dice(results: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Mean over runs and studies, and the standard deviation between the runs' means."""
    means = [float(np.mean(result["dice"])) for result in results]
    return float(np.mean(means)), float(np.std(means))
