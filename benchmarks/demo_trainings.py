"""Make demo studies with scripted clicks, and train on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.evidence.dataset import Dataset, Split, write_split
from lib.data.annotated_scan import AnnotatedScan
from lib.data.prepared_scans import PreparedScans
from lib.demo.demo_studies import write_demo_studies
from lib.networks.checkpoint import TrainedModel, load_checkpoint
from lib.training.hyperparameters import Hyperparameters
from lib.training.model_folder import ModelFolder
from lib.training.record import TrainingRecord
from lib.training.run import Training

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def demo_dataset(folder: Path, training: int, test: int = 1) -> Dataset:
    """Demo studies of bright lesions; studies that are there already are kept.

    Raises:
        ValueError: the folder holds studies of other settings.
    """
    studies = write_demo_studies(folder / "images", folder / "masks", training + test)
    split: dict[str, Split] = {study: "training" if n < training else "test" for n, study in enumerate(studies)}
    write_split(folder / "split.csv", split)
    return Dataset.open(folder)


def clicked_scans(dataset: Dataset) -> list[AnnotatedScan]:
    """Return the training cases with the clicks of a scripted annotator, with an error of 0.5 mm."""
    cases = dataset.cases["training"]
    return [dataset.annotated_scan(case, dataset.annotations(case, "annotator")) for case in cases]


def trained_model(
    scans: Sequence[AnnotatedScan], labels: tuple[str, ...], folder: Path, h: Hyperparameters
) -> TrainedModel:
    """Return the network of a training from scratch; a training that ended in this folder is not repeated.

    Args:
        folder: of the model; scans are prepared in `prepared` beside it, for trainings that follow.
    """
    models = ModelFolder(folder)
    prepared = PreparedScans(folder.parent / "prepared")
    if not TrainingRecord.load(models.trainings.record).runs:
        Training(scans, labels, models, h, prepared, DEVICE).run()
    return load_checkpoint(models.published)
