"""Log figures and pictures of a training to TensorBoard and, if wanted, to MLflow."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow import MlflowClient
from torch.utils.tensorboard import SummaryWriter

KEPT_RUNS = 20
"""Whose curves and pictures stay; those of older ones are deleted."""

GEODESIC_RGB = (255, 209, 102)
KNOWN_BACKGROUND_LIGHT = 0.35


class Trackers:
    """One training in both.

    Args:
        events_dir: of TensorBoard, with a folder for each run.
        run_name: of this one.
        mlflow: where MLflow keeps its record, or None where none is wanted.
    """

    def __init__(self, events_dir: Path, run_name: str, mlflow: MLflowRun | None) -> None:
        _keep_newest(events_dir, KEPT_RUNS - 1)
        self._board = SummaryWriter(str(events_dir / run_name))
        self._mlflow = mlflow

    def figures(self, figures: Mapping[str, float], iteration: int) -> None:
        """Adds figures by their names."""
        for name, value in figures.items():
            self._board.add_scalar(name, value, iteration)
            if self._mlflow is not None:
                self._mlflow.figure(name, value, iteration)
        self._board.flush()

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        """Adds a picture (H, W, 3) uint8."""
        self._board.add_image(name, picture, iteration, dataformats="HWC")
        self._board.flush()
        if self._mlflow is not None:
            self._mlflow.picture(name, picture, iteration)

    def close(self, *, failed: bool) -> None:
        self._board.close()
        if self._mlflow is not None:
            self._mlflow.end("FAILED" if failed else "FINISHED")


class MLflowRun:
    """A run in MLflow's record.

    Args:
        uri: of the record; MLflow refuses a folder of files.
        experiment: its name.
        artifacts: folder of pictures; MLflow would put them where the process happens to be.
    """

    def __init__(
        self, uri: str, experiment: str, artifacts: Path, run_name: str, parameters: Mapping[str, Any]
    ) -> None:
        self.client = MlflowClient(uri)
        known = self.client.get_experiment_by_name(experiment)
        number = (
            self.client.create_experiment(experiment, artifact_location=artifacts.as_uri())
            if known is None
            else known.experiment_id
        )
        _keep_newest(artifacts, KEPT_RUNS - 1)
        self._id = self.client.create_run(number, run_name=run_name).info.run_id
        for name, value in parameters.items():
            self.client.log_param(self._id, name, value)

    def figure(self, name: str, value: float, iteration: int) -> None:
        self.client.log_metric(self._id, name, value, step=iteration)

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        self.client.log_image(self._id, picture, f"{name}/{iteration:06d}.png")

    def end(self, status: str) -> None:
        self.client.set_terminated(self._id, status)


def _keep_newest(folder: Path, count: int) -> None:
    runs = [run for run in folder.iterdir() if run.is_dir()] if folder.is_dir() else []
    for run in sorted(runs, key=lambda run: run.stat().st_mtime_ns)[: max(0, len(runs) - count)]:
        shutil.rmtree(run, ignore_errors=True)


def supervision_picture(images: torch.Tensor, label_sets: torch.Tensor) -> np.ndarray | None:
    """What a batch is supervised with, in the patch that has most of it; None where no voxel is known to be a label's.

    The geodesics of all slices are drawn over the slice that holds most of their voxels; what is known to be background
    is dark, what is unknown is as bright as it is.

    Args:
        images: (B, 1, X, Y, Z).
        label_sets: (B, 1 + C, X, Y, Z) bool label sets.

    Returns:
        (Y, X, 3) uint8.
    """
    foreground = ~label_sets[:, 0]
    if not foreground.any():
        return None
    chosen = int(foreground.sum(dim=(1, 2, 3)).argmax())
    image, drawn = images[chosen, 0].float().cpu().numpy(), foreground[chosen].cpu().numpy()
    background = (~label_sets[chosen, 1:].any(dim=0)).cpu().numpy()
    number = int(drawn.sum(axis=(0, 1)).argmax())
    slice_ = image[..., number]
    low, high = np.percentile(slice_, (1, 99))
    grey = np.clip((slice_ - low) / max(high - low, 1e-6), 0, 1) * 255
    grey[background[..., number]] *= KNOWN_BACKGROUND_LIGHT
    picture = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    picture[drawn.any(axis=-1)] = GEODESIC_RGB
    return picture.transpose(1, 0, 2)[::-1]
