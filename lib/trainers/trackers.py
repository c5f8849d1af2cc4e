"""Log metrics and pictures of a training to TensorBoard and, as an option, to MLflow."""

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
"""Number of runs whose curves and pictures are kept; those of older runs are deleted."""

GEODESIC_RGB = (255, 209, 102)
KNOWN_BACKGROUND_LIGHT = 0.35


class Trackers:
    """Log of one training in TensorBoard and MLflow.

    Args:
        events_dir: folder of TensorBoard, with a folder for each run.
        run_name: name of this run.
        mlflow: run of MLflow, or None to log to TensorBoard only.
    """

    def __init__(self, events_dir: Path, run_name: str, mlflow: MLflowRun | None) -> None:
        _keep_newest(events_dir, KEPT_RUNS - 1)
        self._board = SummaryWriter(str(events_dir / run_name))
        self._mlflow = mlflow

    def metrics(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Log metrics by name."""
        for name, value in metrics.items():
            self._board.add_scalar(name, value, iteration)
            if self._mlflow is not None:
                self._mlflow.metric(name, value, iteration)
        self._board.flush()

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        """Log a picture (H, W, 3) uint8."""
        self._board.add_image(name, picture, iteration, dataformats="HWC")
        self._board.flush()
        if self._mlflow is not None:
            self._mlflow.picture(name, picture, iteration)

    def close(self, *, failed: bool) -> None:
        self._board.close()
        if self._mlflow is not None:
            self._mlflow.end("FAILED" if failed else "FINISHED")


class MLflowRun:
    """Run of MLflow.

    Args:
        uri: of the tracking store; MLflow refuses a folder of files.
        experiment: name of the experiment.
        artifacts: folder of pictures; by default, MLflow writes them to the working directory.
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

    def metric(self, name: str, value: float, iteration: int) -> None:
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
    """Draw the supervision of a batch, in the patch with most foreground.

    The geodesics of all slices are drawn over the slice with most of their voxels; known background is darkened,
    unknown voxels are not.

    Args:
        images: (B, 1, X, Y, Z).
        label_sets: (B, 1 + C, X, Y, Z) bool.

    Returns:
        (Y, X, 3) uint8; None if no voxel is known to be foreground.
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
