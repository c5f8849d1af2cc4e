"""Define every path of a folder of models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.networks.versions import ModelVersions

NAME = "inextremis"
"""Name of the model and of its trainer."""


@dataclass(frozen=True)
class TrainingFolder:
    """State and record of the trainings of a model."""

    folder: Path

    @property
    def lock(self) -> Path:
        """Lock of the one training of a project."""
        return self.folder / ".lock"

    @property
    def record(self) -> Path:
        """Trainings and held-out scans (`lib.training.record`)."""
        return self.folder / "record.json"

    @property
    def unfinished(self) -> Path:
        """Checkpoint of an interrupted training."""
        return self.folder / "unfinished.pt"

    @property
    def atlases_of_clicks(self) -> Path:
        """Shape atlases made from clicks, which click requests use."""
        return self.folder / "atlases_of_clicks.npz"

    @property
    def click_networks(self) -> Path:
        """Click networks, which click requests use."""
        return self.folder / "click_networks.pt"

    @property
    def statistics(self) -> Path:
        """Statistics of the latest training for viewers."""
        return self.folder / "train_stats.json"

    @property
    def curves(self) -> Path:
        """Loss and score curves of the latest training."""
        return self.folder / "curves.json"

    @property
    def events(self) -> Path:
        """Event files of TensorBoard, in a folder for each training."""
        return self.folder / "runs"


@dataclass(frozen=True)
class ModelFolder:
    """Published network, its versions and its trainings: `model_dir`, by default `model/` of a project.

    Attributes:
        keep: number of versions that stay.
    """

    folder: Path
    keep: int = 5

    @property
    def published(self) -> Path:
        """Checkpoint that requests use."""
        return self.folder / f"{NAME}.pt"

    @property
    def trainings(self) -> TrainingFolder:
        return TrainingFolder(self.folder / NAME)

    @property
    def versions(self) -> ModelVersions:
        return ModelVersions(self.published, self.keep)
